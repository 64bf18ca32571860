"""Run parts on worker processes, here or on a Ray cluster."""
