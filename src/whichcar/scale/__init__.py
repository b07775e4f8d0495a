"""Stages on a Ray cluster, for work that is too much for one machine."""
