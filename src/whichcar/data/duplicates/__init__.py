"""Images that are copies of each other."""
