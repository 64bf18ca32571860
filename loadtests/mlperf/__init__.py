"""The four MLPerf Inference scenarios, by the real LoadGen, over HTTP: ``python -m loadtests mlperf``."""
