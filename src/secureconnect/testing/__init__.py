"""The failure lab for embedders and for our own tests: networks, stores and clocks that can be slow, torn and replayed."""
