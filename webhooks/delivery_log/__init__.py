"""Reads the delivery log: `query`, `detail`, `diff`, `charts`, and why an event was not sent.

Start reading at `query`.
"""
