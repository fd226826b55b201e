"""Knowledge of the Linux kernel without verdicts, one file per subsystem, in the kernel's own names."""
