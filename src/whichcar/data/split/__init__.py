"""From images and labels to a train/validation/test tree, and reading such a tree."""
