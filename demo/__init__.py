"""A small Django project that shows pgq at work: `python -m demo`. Read tasks.py first, then models.py."""
