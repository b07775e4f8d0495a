"""Find the vehicle in an image and crop the image to it."""
