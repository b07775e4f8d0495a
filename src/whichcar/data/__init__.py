"""The first room: images and labels, from files to arrays."""
