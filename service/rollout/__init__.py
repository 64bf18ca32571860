"""Replace one version of a model by another while it is served."""
