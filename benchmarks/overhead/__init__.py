"""Measure what a feature costs a request."""
