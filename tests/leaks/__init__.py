"""Canary secrets, how a leak may spell them, and every place they could leak to."""
