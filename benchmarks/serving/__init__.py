"""Compare Lectern with other servers."""
