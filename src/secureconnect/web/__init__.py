"""The web client: plain files that the server serves as they are; no build step."""
