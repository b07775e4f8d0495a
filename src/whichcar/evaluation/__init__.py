"""The fourth room: what a checkpoint says of images, and how often it is right."""
