"""The Open Inference Protocol, version 2, as Triton, KServe and their clients speak it, below ``/v2``.

Source: https://github.com/kserve/open-inference-protocol and the extensions in Triton's documentation.
"""
