"""What the models are: cards, codecs, recipes and the certificate every room relies on."""
