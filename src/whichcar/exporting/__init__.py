"""From a trained network to one file that predicts without Keras."""
