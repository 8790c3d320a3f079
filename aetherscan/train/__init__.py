"""Train the encoder and the random forest, and write a release; only this package imports Keras."""
