"""Benchmarks: the project's two processes beside Envoy's reverse tunnel pair."""
