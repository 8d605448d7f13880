"""Shared by browser tests and screenshots: a watched Chromium, and a person's steps in it."""
