"""The pictures of docs/images: `make pictures` runs a small shop under load, and takes them of its pages."""
