"""From an image, wherever it is, to an RGB array: the only place where images are opened and resized."""
