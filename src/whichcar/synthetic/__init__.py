"""Drawn cars: images with labels for the demo and the tests, without a download."""
