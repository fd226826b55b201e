"""What a vendor built, as a reference for what is in memory: packages, kernels and modules as files."""
