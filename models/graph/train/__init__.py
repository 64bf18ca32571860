"""Train graph models."""
