"""One page that describes a dataset."""
