"""Publish events in a separate process, so that it can die of a fault: see F6."""

import sys

import django
from django.db import transaction


def main(count: int) -> None:
    django.setup()
    from tests.faults.world import EVENT
    from webhooks import events

    with transaction.atomic():
        events.publish_many(
            [events.NewEvent(EVENT, {"call_id": f"c{number}"}) for number in range(count)]
        )


if __name__ == "__main__":
    main(int(sys.argv[1]))
