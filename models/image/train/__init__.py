"""Train image models."""
