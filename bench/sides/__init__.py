"""The two sides of `bench/stores.py`: our stores in their stacks (`ours.py`), and the same work on the bare drivers (`bare.py`).

Each runs in a process of its own (`worker.py`) and counts its own CPU, threads and kernel included; it starts no children.
"""
