"""What a dataset holds, as one page."""
