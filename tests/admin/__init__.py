"""Tests for L{reverseproxy.admin}."""
