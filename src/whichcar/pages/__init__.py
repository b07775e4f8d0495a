"""The HTML pages that whichcar writes: Jinja2 templates, one frame, one style sheet; nothing loads from the network."""
