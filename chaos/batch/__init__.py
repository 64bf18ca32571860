"""Crash tests of batch scoring: every crash point, power loss, and SIGKILLs at random instants."""
