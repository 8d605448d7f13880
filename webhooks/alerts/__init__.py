"""Incidents and notifications: `problems` finds what is wrong, `notifications` tells people."""
