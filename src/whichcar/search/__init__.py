"""Hyperparameter search: every trial is a training of its own."""
