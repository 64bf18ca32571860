"""Find installed models and remember which versions are active."""
