"""Serving: a web server that classifies uploaded images, its page, and a client."""
