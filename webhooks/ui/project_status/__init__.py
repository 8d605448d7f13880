"""How everything is doing now: what waits, slow receivers, tokens that end."""
