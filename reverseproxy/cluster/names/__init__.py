"""Hosts that the configuration gives by name: DNS."""
