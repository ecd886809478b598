"""One set of stores in portable SQL; the engine below them speaks SQLite (here) or PostgreSQL (later)."""
