"""The list of webhooks: search, filters, bulk actions."""
