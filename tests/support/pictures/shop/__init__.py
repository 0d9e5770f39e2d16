"""A shop that does not exist."""
