"""Logging in, and a person's preferences."""
