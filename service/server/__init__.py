"""Listen: connections, the fast path, routes, limits and shutdown."""
