"""Programs that the house needs and users do not: they write the generated part of the documentation."""
