"""Messages: what people write to each other, as entries of their conversation's log."""
