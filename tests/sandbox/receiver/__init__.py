"""A webhook receiver that shows its requests and fails on demand. No framework, loopback only."""
