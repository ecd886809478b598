"""Conversations: who talks with whom, under which name and which rules."""
