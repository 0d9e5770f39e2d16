"""Measurements. Nothing here is shipped."""
