"""Read rows of every input format."""
