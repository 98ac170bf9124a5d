"""Failures of services, networks and peers.  Each test prints its figure."""
