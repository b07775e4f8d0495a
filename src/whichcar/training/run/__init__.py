"""One run on disk: folder, checkpoints, state, history."""
