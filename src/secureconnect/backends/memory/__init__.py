"""The embedded stores without a disk: fallback, simulator and test double in one, held to the same contracts as a database.

No threads, no clock, no chance. Every method passes a checkpoint and then does its work in one synchronous step, which makes it
atomic.
"""
