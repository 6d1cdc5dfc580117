"""The wire: boxes and their bytes, without I/O."""
