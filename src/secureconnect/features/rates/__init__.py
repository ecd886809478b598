"""How often somebody may ask for something: the buckets, and what happens while their home is away."""
