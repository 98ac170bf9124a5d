"""Bytes on an accepted connection, given to a host as they are."""
