"""Replays: past deliveries sent again."""
