"""Train any family: the loop, the data sets, the plots. Imported by no serving code."""
