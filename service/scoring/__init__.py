"""Batch scoring: a file in, one line out per line in, through the same ``Predictor`` as REST."""
