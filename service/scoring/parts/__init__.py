"""Score one part of an input and encode its rows."""
