"""Inference: from images to predicted classes."""
