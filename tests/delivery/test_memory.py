"""A drain holds an event once for all its rows; checked by limiting its address space."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.receivers import OwnReceiver

ROOT = Path(__file__).resolve().parents[2]
# 4 events of 1 MB for each of 200 webhooks: a copy for each row would be 800 MB.
EVENTS, WEBHOOKS = 4, 200
# Memory for delivering, on top of what the process uses before: three times what it needs.
ROOM_MIB = 160
DRAIN = f"""
import re, resource, sys, time
import django
django.setup()
from pathlib import Path
from django.core.management import call_command
from tests.factories import make_webhook
from webhooks import events
from webhooks.delivery.engine import Engine
from webhooks.delivery.wakeup import ProcessWakeup
from webhooks.models import Attempt, Delivery
call_command("migrate", verbosity=0)
rows = [make_webhook(url=sys.argv[1] + "/hook") for _ in range({WEBHOOKS})]
for _ in range({EVENTS}):
    events.publish("call.incoming.after", {{"call_id": "c", "note": "x" * 1_000_000}})
ends = time.monotonic() + 100
look_at = 0.0
is_done = False
def should_stop():
    global look_at, is_done
    if time.monotonic() > look_at:
        look_at = time.monotonic() + 0.2
        is_done = not Delivery.objects.exclude(status="succeeded").exists()
    return is_done or time.monotonic() > ends
engine = Engine(ProcessWakeup(), should_stop)
for row in rows:
    # Known to answer: of each all rows are claimed at once.
    engine.limiters.begin(row.pk, failures=0)
used = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + {ROOM_MIB} * 2**20,) * 2)
engine.run(200)
print(Attempt.objects.filter(outcome="succeeded").count())
"""


@pytest.mark.timeout(180)
def test_large_events_of_many_webhooks_fit_into_little_memory(database_url: str) -> None:
    # One malloc arena: each further one would reserve 64 MiB of address space.
    environment = {
        **os.environ,
        "DATABASE_URL": database_url,
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "MALLOC_ARENA_MAX": "1",
    }
    with OwnReceiver() as receiver:
        ended = subprocess.run(
            [sys.executable, "-c", DRAIN, receiver.url],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
    sent = ended.stdout.strip().rpartition("\n")[2]
    assert (ended.returncode, sent) == (0, str(EVENTS * WEBHOOKS)), ended.stderr[-3000:]
