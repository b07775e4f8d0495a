"""Experiments next to each other."""
