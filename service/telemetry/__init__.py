"""Expose metrics, logs, traces and drift."""
