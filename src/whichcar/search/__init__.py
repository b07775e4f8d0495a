"""Hyperparameter search, in which every trial is a separate training."""
