"""From a checkpoint to a certified artifact, and from there into the model store."""
