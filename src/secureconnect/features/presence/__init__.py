"""Who is there: one user over several sockets and nodes."""
