"""Logging in and preferences of a person."""
