"""What the benchmark needs beforehand: a clean 512 MiB image from the lab, and Volatility's symbol file for it."""
