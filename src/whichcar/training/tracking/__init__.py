"""Logging a run to a tracking service."""
