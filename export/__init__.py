"""From a checkpoint to a certified artifact, and from there into the model store."""

import models  # noqa: F401  # before ONNX Runtime: it says that nothing is reported
