"""HTTP/1 as events, and events as HTTP/1."""
