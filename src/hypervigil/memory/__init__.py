"""Physical memory behind one `Reader` protocol, whatever holds it: a file, a core, a running machine."""
