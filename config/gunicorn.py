"""How gunicorn serves the site. More processes for more cores: WEB_CONCURRENCY=2."""

import gc
import os

# Most of a request is waiting for the database, and threads share commits: docs/performance.md.
threads = 16
worker_class = "config.web_worker.StayingWorker"
worker_tmp_dir = "/dev/shm"  # noqa: S108 - a heartbeat that waits for no disk.
control_socket_disable = True
# Several processes share what was loaded before they were forked; for one that would cost more.
preload_app = int(os.environ.get("WEB_CONCURRENCY", "1")) > 1


def when_ready(server: object) -> None:
    """Keep the garbage collector off what was loaded, so that it stays shared."""
    gc.collect()
    gc.freeze()


def post_worker_init(worker: object) -> None:
    """Keep it off what a process loads itself: a request would wait 30 ms and more for that."""
    gc.collect()
    gc.freeze()
