"""Deleted webhooks: restore them or delete them permanently."""
