"""Text to frozen, validated models; knows nothing of the runtime."""
