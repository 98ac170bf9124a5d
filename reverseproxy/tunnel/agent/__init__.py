"""The agent's end of a tunnel, which dials."""
