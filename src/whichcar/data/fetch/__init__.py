"""Fetch images and labels from anywhere."""
