"""Attacks of unauthenticated peers on a process at a public address."""
