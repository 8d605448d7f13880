"""`manage.py web`: the site and its event API in one process for each core, for PostgreSQL."""

from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from webhooks.management import web_server
from webhooks.management.printable import PrintableCommand

_LAST_PORT = 65_535


class Command(PrintableCommand):
    help = "Serve the site and the event API. WEB_CONCURRENCY sets the number of processes (1)."
    # Run by `manage.py check` instead.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--bind",
            type=_address,
            default="127.0.0.1:8000",
            help="host:port, 127.0.0.1:8000 by default",
        )

    def handle(self, **options: Any) -> None:
        web_server.serve(options["bind"])


def _address(text: str) -> str:
    _host, colon, port = text.rpartition(":")
    if not (colon and port.isascii() and port.isdecimal() and int(port) <= _LAST_PORT):
        raise ArgumentTypeError(f"{text!a} is not host:port, such as 127.0.0.1:8000")
    return text
