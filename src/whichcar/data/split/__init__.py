"""Build a train/validation/test tree from images and labels, and read such a tree."""
