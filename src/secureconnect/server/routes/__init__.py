"""The operations, a file a feature: parameters, what they may be, and the one service call behind each."""
