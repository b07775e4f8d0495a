"""Stages on a Ray cluster, for more than one machine does."""
