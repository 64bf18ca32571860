"""Train taggers."""
