"""A page on the running service to try every model with, where ``LECTERN_DEMO`` is set: static files, nothing else."""
