"""Reverse tunnels: agents dial connections to servers, where each becomes a host of a cluster."""
