"""Distributed tracing: propagation of trace contexts, and the spans of requests."""
