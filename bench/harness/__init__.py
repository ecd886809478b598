"""What all benches share: building the peers, running servers and loads on their cores, rounds and medians, the report."""
