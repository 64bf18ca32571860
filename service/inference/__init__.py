"""Take requests for a model through its queue and its micro-batches."""
