"""Alert channels: recipients of alerts of all or chosen webhooks."""
