"""The page of one webhook."""
