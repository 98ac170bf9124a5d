"""Reloads, upgrades and takeovers under load: no request fails."""
