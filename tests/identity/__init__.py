"""Tests for L{reverseproxy.identity}."""
