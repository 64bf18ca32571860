"""Define the models: cards, codecs, recipes, and the certificate every room relies on."""

import os

# Libraries that report their use to their makers. ONNX Runtime looks when it is imported and calls ten seconds later,
# from native code that no audit hook sees; every room imports this package before it.
os.environ.update(ORT_DISABLE_TELEMETRY="1", BENTOML_DO_NOT_TRACK="True")
