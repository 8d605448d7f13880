"""A webhook receiver that shows what it got and fails on demand. No framework, loopback only."""
