"""Jobs over REST: who asks for one, where it is written down, and who runs it."""
