"""Incidents and notifications: `problems` detects problems, `notifications` notifies people."""
