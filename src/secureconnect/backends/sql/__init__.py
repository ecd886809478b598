"""One set of stores in portable SQL; the engine below them speaks SQLite, or PostgreSQL and CockroachDB."""
