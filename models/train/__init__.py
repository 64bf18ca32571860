"""Train models and run experiments from the command line."""
