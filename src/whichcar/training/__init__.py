"""The third room: from pictures to a trained checkpoint."""
