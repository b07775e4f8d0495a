"""The network and how its weights are updated."""
