"""The fourth room: what a checkpoint says of pictures, and how often it is right."""
