"""`make faults`: every fault of the list made for real, and what became of each delivery counted.

`python -m tests.faults --help` says how to run a part of it; docs/reliability.md what it proves.
"""
