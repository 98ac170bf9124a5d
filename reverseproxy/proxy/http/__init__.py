"""HTTP on an accepted connection, and towards hosts."""
