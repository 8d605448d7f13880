"""Integrations -> Webhooks 2.0: configure, authorize, deliver and log outgoing webhooks."""
