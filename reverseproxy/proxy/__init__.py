"""What happens on an accepted connection."""
