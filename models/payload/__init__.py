"""Read request bodies and write answers."""
