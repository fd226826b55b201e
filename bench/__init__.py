"""Measurements, against other tools and against the size of images. Not part of the package."""
