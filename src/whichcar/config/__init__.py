"""The settings, each defined once: their sections, reading a file, error messages, and the table of settings."""
