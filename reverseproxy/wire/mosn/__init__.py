"""The bytes of MOSN's reverse channel."""
