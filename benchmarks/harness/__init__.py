"""Start servers, generate load and record what was measured."""
