"""Typed statements about a system, a module per domain. Constructors refuse what no sound system can give."""
