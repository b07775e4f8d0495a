"""Every setting once: its sections, reading a file, its errors in words, its table."""
