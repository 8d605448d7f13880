"""Attacks the product and counts: `make security` prints one JSON line at the end.

Tests marked `security` report what they counted through the fixture `security_figure`.
"""
