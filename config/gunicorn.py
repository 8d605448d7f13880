"""How gunicorn serves the site. More processes for more cores: WEB_CONCURRENCY=2."""

import gc

# Most of a request is waiting for the database, and threads share commits: docs/performance.md.
threads = 16
worker_tmp_dir = "/dev/shm"  # noqa: S108 - a heartbeat that waits for no disk.
control_socket_disable = True
# The processes share what was loaded before they were forked.
preload_app = True


def when_ready(server: object) -> None:
    """Keep the garbage collector off what was loaded, so that it stays shared."""
    gc.collect()
    gc.freeze()
