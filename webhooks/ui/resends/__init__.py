"""Resends: past deliveries sent again."""
