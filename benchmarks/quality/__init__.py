"""Measure how good drift detection and served answers are."""
