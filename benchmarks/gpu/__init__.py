"""Measure models on a GPU."""
