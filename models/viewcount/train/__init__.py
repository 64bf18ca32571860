"""Train view-count models."""
