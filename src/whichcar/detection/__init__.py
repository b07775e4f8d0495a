"""Finding the vehicle in a picture and cutting the picture to it."""
