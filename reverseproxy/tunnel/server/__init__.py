"""The server's end of a tunnel, which accepts connections of agents."""
