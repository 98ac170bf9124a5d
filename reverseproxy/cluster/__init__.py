"""Clusters: hosts, membership, load balancing, health, and the queue of waiting requests."""
