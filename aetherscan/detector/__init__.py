"""A release in memory: the encoder and the random forest, from cut-outs to probabilities."""
