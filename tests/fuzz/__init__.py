"""Hostile input for all code that reads text from people, providers and receivers.

A target is a strategy that makes inputs, and a check that raises when one is handled wrongly.
`tests/security/test_fuzz.py` runs each for a second or two, `make security` much longer, in
`tests.fuzz.runner`.
"""
