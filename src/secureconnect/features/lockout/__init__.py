"""Too many wrong passwords: who is locked out of an account, and for how long."""
