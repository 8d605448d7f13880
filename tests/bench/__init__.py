"""`python -m tests.bench` (`make bench`): the throughput and cost of the engine on one core.

Starts its own PostgreSQL (fsync and synchronous_commit on), Redis and receivers, and runs real
Celery workers. docs/performance.md defines every figure. Uses only the product's public functions
and its tables.
"""
