"""The only code that acquires evidence; read-only on its target."""
