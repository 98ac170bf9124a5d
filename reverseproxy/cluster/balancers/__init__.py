"""Load balancers: which host gets a request."""
