"""The first room: pictures and labels, from files to arrays."""
