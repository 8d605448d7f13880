"""Publish one event from the shell: `manage.py publish form.submitted --payload form.json`."""

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _

from webhooks import events, payloads
from webhooks.delivery.requests import printable
from webhooks.management.printable import PrintableCommand


class Command(PrintableCommand):
    help = "Publish one event and print its id and the number of its deliveries."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("type", metavar="TYPE", help="for example call.incoming.after")
        parser.add_argument(
            "--payload",
            required=True,
            metavar="FILE",
            help="a file with a JSON object; - reads it from standard input",
        )
        parser.add_argument(
            "--idempotency-key",
            metavar="KEY",
            help="publishing again with the same key and payload is the same event",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            published = events.publish(
                options["type"],
                payloads.load_json(_read(options["payload"])),
                idempotency_key=options["idempotency_key"],
                source="manage.py publish",
            )
        except (payloads.DocumentError, events.InvalidEventError) as error:
            raise CommandError(printable(str(error))) from error
        self.stdout.write(published.event_id)
        note = " (published before with this key)" if published.is_duplicate else ""
        self.stdout.write(f"deliveries: {published.deliveries}{note}")


def _read(name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        message = _("The file %(name)s cannot be read: %(reason)s.") % {
            "name": printable(name),
            "reason": error.strerror,
        }
        raise CommandError(message) from error
