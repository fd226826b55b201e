"""Physical memory behind one `Reader` protocol: formats, live machines, locating and opening the kernel."""
