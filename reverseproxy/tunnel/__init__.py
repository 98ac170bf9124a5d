"""The mission: held connections that turn into hosts, and agents that dial them."""
