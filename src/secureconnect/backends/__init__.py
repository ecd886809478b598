"""The adapters, one room a technology; they keep and find, they decide nothing."""
