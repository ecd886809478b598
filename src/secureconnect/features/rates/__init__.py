"""How often somebody may ask for something: the classes and their numbers, the buckets, what happens while their home is away."""
