"""What is wrong with images and labels."""
