"""Which host gets a request."""
