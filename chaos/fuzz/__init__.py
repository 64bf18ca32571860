"""Send malformed requests."""
