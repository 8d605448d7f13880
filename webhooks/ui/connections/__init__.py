"""Connections: credentials saved under a name and used by several webhooks."""
