"""Who may do what in a conversation, a foundation room: membership and roles, cached, asked by every other feature."""
