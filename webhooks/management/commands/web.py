"""`manage.py web`: the site and its event API in one process for each core, for PostgreSQL."""

from argparse import ArgumentParser
from typing import Any

from config import web_server
from webhooks.management.printable import PrintableCommand


class Command(PrintableCommand):
    help = "Serve the site and the event API. WEB_CONCURRENCY is how many processes do."
    # Their answer comes from `manage.py check`.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--bind", default="127.0.0.1:8000", help="host:port, 127.0.0.1:8000 by default"
        )

    def handle(self, **options: Any) -> None:
        web_server.serve(options["bind"])
