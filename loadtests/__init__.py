"""From outside, over HTTP only."""
