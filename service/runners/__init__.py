"""Run models, in this process or in one of their own."""
