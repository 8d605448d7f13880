"""Finds every text for people, keeps the Ukrainian translation in step, and compiles it."""
