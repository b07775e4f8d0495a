"""Exporting: from a trained network to one file that predicts without Keras."""
