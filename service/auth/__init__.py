"""Decide who may call, and how often."""
