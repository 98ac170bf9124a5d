"""The end of a tunnel that dials."""
