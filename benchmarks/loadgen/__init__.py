"""Compare Lectern's load generator with others."""
