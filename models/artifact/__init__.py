"""Describe, sign and check the files that a trained model is served from."""
