"""Catalogues and tables as data, each with its version and source."""
