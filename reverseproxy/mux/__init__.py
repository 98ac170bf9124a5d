"""Multiplexing: many streams on one connection, each of which is a transport."""
