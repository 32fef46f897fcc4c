"""A stand-in for the library of measured kernels: put its parent folder on `sys.path`."""
