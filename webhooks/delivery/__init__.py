"""The delivery engine: from an event's rows to recorded attempts.

`fan_out` writes the rows, a Celery task runs `engine` (claim, plan, send, record), `queue/` has
the SQL. Start reading at `engine`; docs/engine.md describes the design.
"""
