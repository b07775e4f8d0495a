"""Evaluation of a checkpoint: accuracy on a split, per class, calibration, and likely label errors."""
