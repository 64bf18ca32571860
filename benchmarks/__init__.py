"""Measure every number in the documentation."""

import models  # noqa: F401  # before ONNX Runtime: it says that nothing is reported
