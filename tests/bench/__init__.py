"""`python -m tests.bench` (`make bench`): what the engine does on one core.

Starts its own PostgreSQL (fsync and synchronous_commit on), Redis and receivers, and runs real
Celery workers. docs/performance.md defines every figure. Reads the product only through its public
functions and its tables.
"""
