"""Alert channels: the recipients of alerts of every webhook."""
