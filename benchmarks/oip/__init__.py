"""Lectern asked by the Open Inference Protocol: broken bodies, Triton's own tools, Triton itself, and speed."""
