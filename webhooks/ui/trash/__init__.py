"""Deleted webhooks: restore them or delete them for good."""
