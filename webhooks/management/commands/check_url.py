"""Show the network guard's verdict on URLs, without a database."""

from typing import Any

from django.core.management.base import CommandError, CommandParser

from webhooks import network
from webhooks.delivery.requests import printable
from webhooks.management.printable import PrintableCommand


class Command(PrintableCommand):
    help = "Say for each URL whether a webhook may be sent to it now, and why not."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("urls", nargs="+", metavar="URL")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print `allow` or `block`, the URL and the reason; exit with 1 if any is blocked."""
        try:
            policy = network.Policy.from_settings()
        except ValueError as error:
            raise CommandError(f"WEBHOOKS_ALLOWED_NETWORKS cannot be read: {error}") from error
        is_any_blocked = False
        for url in options["urls"]:
            try:
                reason = f"sent as {network.check_url(url, policy=policy).url}"
                verdict = "allow"
            except (network.UnsafeURLError, network.NameNotResolvedError) as error:
                reason, verdict = error.reason, "block"
                if entry := getattr(error, "opened_by", ""):
                    reason += f" WEBHOOKS_ALLOWED_NETWORKS={entry} would open it."
                is_any_blocked = True
            # Escaped, so that no control characters reach a terminal.
            self.stdout.write(f"{verdict}\t{url!a}\t{printable(reason)}")
        if is_any_blocked:
            raise SystemExit(1)
