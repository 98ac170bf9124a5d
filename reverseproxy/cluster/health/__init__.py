"""Which hosts can serve, by what is asked of them and by what they do."""
