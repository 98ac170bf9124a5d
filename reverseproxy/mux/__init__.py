"""Many streams on one connection, each a transport."""
