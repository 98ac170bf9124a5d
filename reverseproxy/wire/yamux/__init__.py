"""yamux: many streams on one connection."""
