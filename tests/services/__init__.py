"""Tests for L{reverseproxy.services}."""
