"""Alert channels: who is told about webhooks besides the people named on them."""
