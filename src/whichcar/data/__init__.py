"""Images and labels, from files to arrays."""
