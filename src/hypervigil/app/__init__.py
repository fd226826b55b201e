"""Use-cases: the only place where layers are wired together."""
