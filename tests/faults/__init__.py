"""`make faults`: make every fault of the list for real, and count what became of each delivery.

`python -m tests.faults --help` explains how to run parts of it; docs/reliability.md what it proves.
"""
