"""Lectern's own Prometheus: where it comes from, how it runs, the dashboards, and pictures of them."""
