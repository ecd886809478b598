"""What is broken, and how: one page for each dependency."""
