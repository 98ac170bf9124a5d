"""What strangers can do to a process that is left alone on a public address."""
