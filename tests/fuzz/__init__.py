"""Hostile input for everything that reads what people, providers and receivers write.

A target is a strategy that makes inputs and a check that raises when one is not dealt with as it
should be. `tests/security/test_fuzz.py` runs each for a second or two, `make security` for long, in
`tests.fuzz.running`.
"""
