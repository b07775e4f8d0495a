"""Getting images and labels from anywhere."""
