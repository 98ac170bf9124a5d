"""From configurations to what serves, one after the other."""
