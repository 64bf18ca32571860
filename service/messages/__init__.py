"""Represent HTTP requests and responses as values, without I/O."""
