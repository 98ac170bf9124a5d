"""What every version of HTTP has in common."""
