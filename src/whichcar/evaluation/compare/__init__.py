"""Comparison of experiments, and of searches."""
