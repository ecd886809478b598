"""Benches: one file, one question. `python -m bench [NAME …]` runs them; performance.md says what each must beat.

Every figure is a ratio to a peer or to a C program measured in the same run: servers stand up side by side and are measured in
turn, round after round; the figure of record is the median. Nothing here asserts. `harness/` measures, `load/` is the load
client and the C floor, `peers/` are other people's servers at their best settings, `ours.py` is ours.
"""
