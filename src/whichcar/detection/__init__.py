"""Finding the vehicle in an image and cutting the image to it."""
