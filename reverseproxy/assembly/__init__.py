"""Build the running objects of a configuration, and replace them on a reload."""
