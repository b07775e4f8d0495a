"""Searching for settings: many trainings, each a process of its own, led by Optuna."""
