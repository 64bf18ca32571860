"""Measure batch scoring: inputs, upper limits and scripts as people write them."""
