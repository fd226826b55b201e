"""Text of the kernel and its modules: the places where it is patched at run time, one file a mechanism."""
