"""The third room: from images to a trained checkpoint."""
