"""Watch and replace processes, and adapt the libraries they run."""
