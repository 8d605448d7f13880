"""The one-process mode on SQLite: `manage.py run` without other processes.

The database is filled before the start by `python -m tests.bench.embedded ROWS URL`, in its own
process because Django in this process is connected to PostgreSQL.
"""

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench import stage as stages
from tests.bench.scale import Scale
from tests.bench.stage import ROOT, WEBHOOKS, Stage
from tests.services import free_port

_BATCH = 500
_EVENT_TYPE = "call.incoming.after"
_PATIENCE_SECONDS = 180.0
_LEFT = "SELECT count(*) FROM webhooks_delivery WHERE status IN ('pending', 'sending')"
_SPAN = """
SELECT count(*), (max(julianday(d.finished_at)) - min(julianday(a.started_at))) * 86400.0
FROM webhooks_attempt a JOIN webhooks_delivery d ON d.id = a.delivery_id
WHERE a.outcome = 'succeeded'
"""


def measure(stage: Stage, scale: Scale) -> list[float]:
    """Return deliveries per second of each round."""
    return [_round(stage, scale.sqlite_rows) for _ in range(scale.rounds)]


def _round(stage: Stage, rows: int) -> float:
    with tempfile.TemporaryDirectory(prefix="webhooks-bench-") as name:
        directory = Path(name)
        file = directory / "webhooks.sqlite3"
        variables = {**os.environ, **stages.environment(f"sqlite:///{file}", "", directory)}
        command = [sys.executable, "-m", "tests.bench.embedded", str(rows), stage.receiver.url]
        subprocess.run(command, env=variables, cwd=ROOT, check=True)
        port = str(free_port())
        with (directory / "run.log").open("wb") as log:
            product = subprocess.Popen(
                [sys.executable, "manage.py", "run", "--port", port, "--no-sandbox"],
                env={**variables, "PUBLIC_URL": f"http://127.0.0.1:{port}"},
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            return _rate(file, rows)
        finally:
            product.terminate()
            product.wait(60)


def _rate(file: Path, rows: int) -> float:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    connection = sqlite3.connect(file)
    try:
        while connection.execute(_LEFT).fetchone()[0]:
            if time.monotonic() > deadline:
                raise TimeoutError("The one-process mode did not finish.")
            time.sleep(0.25)
        count, seconds = connection.execute(_SPAN).fetchone()
    finally:
        connection.close()
    if count != rows:
        raise RuntimeError(f"{rows} deliveries gave {count} successes.")
    return float(count / seconds)


def _fill(rows: int, url: str) -> None:
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    from webhooks import events
    from webhooks.models import Webhook

    # Only one webhook is subscribed at a time, so that each event makes one delivery.
    webhooks = stages.make_webhooks(WEBHOOKS, url)
    each = max(1, rows // WEBHOOKS)
    for webhook in Webhook.objects.filter(pk__in=webhooks)[: rows // each]:
        Webhook.objects.filter(pk=webhook.pk).update(event_types=[_EVENT_TYPE])
        events.publish_many([events.NewEvent(_EVENT_TYPE, stages.PAYLOAD) for _ in range(each)])
        Webhook.objects.filter(pk=webhook.pk).update(event_types=[])


if __name__ == "__main__":
    _fill(int(sys.argv[1]), sys.argv[2])
