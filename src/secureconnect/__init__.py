"""SecureConnect: a real-time communication server that keeps working when the things it needs fail."""
