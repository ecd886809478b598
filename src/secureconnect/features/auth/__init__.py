"""Accounts, passwords, tokens and login sessions."""
