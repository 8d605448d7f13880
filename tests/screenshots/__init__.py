"""Screenshots of every screen, taken from the real product with the sandbox beside it."""
