"""Resends of past deliveries."""
