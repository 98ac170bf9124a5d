"""Hosts that are given by name."""
