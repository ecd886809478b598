"""The conversation log, a foundation room: one dense sequence per conversation, one way in, one way out."""
