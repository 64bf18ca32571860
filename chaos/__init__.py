"""Break the service and batch jobs on purpose, and check what they promise."""

import models  # noqa: F401  # before ONNX Runtime: it says that nothing is reported
