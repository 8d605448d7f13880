"""The form of a webhook and what it asks while somebody types."""
