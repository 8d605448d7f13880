"""Re-encrypt every stored secret with the first key of FIELD_ENCRYPTION_KEY."""

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import DEFAULT_DB_ALIAS, connections

from webhooks.management.printable import PrintableCommand
from webhooks.security import key_check
from webhooks.security.rotation import Rotation

# Larger batches hold more rows in memory, and locked for longer, without being much faster.
_MAX_BATCH_SIZE = 10_000


class Command(PrintableCommand):
    help = (
        "Encrypt every stored secret again under the first key of FIELD_ENCRYPTION_KEY. It can be "
        "stopped and started again at any moment, while everything else runs."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="count, and write nothing")
        parser.add_argument(
            "--batch-size", type=int, default=200, metavar="ROWS", help="rows in one transaction"
        )
        parser.add_argument("--database", default=DEFAULT_DB_ALIAS, choices=tuple(connections))

    def handle(self, *args: Any, **options: Any) -> None:
        """Exit with 1 unless every secret can be read with the first key alone."""
        if not 1 <= options["batch_size"] <= _MAX_BATCH_SIZE:
            raise CommandError(f"--batch-size must be from 1 to {_MAX_BATCH_SIZE}.")
        using, is_dry_run = options["database"], options["dry_run"]
        if problem := key_check.problem(using):
            raise CommandError(f"{problem} Nothing was changed.")
        rotation = Rotation(using=using, batch_size=options["batch_size"], writes=not is_dry_run)
        for progress in rotation.run():
            if options["verbosity"] > 1:
                self.stdout.write(progress)
                self.stdout.flush()
        self._report(rotation, "would be re-encrypted" if is_dry_run else "re-encrypted")
        if rotation.unreadable or rotation.changed:
            raise CommandError(_what_is_left(rotation))
        if not is_dry_run:
            self.stdout.write("Every secret is under the first key: the others can be removed.")

    def _report(self, rotation: Rotation, done: str) -> None:
        for column, count in sorted(rotation.counts.items()):
            self.stdout.write(
                f"{column}: {count.renewed} {done}, {count.current} under the first key already, "
                f"{count.changed} changed during the run, {len(count.unreadable)} unreadable"
            )
        for where in rotation.unreadable:
            self.stdout.write(f"unreadable: {where}")


def _what_is_left(rotation: Rotation) -> str:
    sentences = []
    if count := rotation.changed:
        sentences.append(f"Secrets that changed during the run: {count}. Run the command again.")
    if rotation.unreadable:
        count = len(rotation.unreadable)
        sentences.append(
            f"Secrets that none of the keys reads, or that belong to another row: {count}. They "
            "were left as they were: add the key they were encrypted with, or set them again."
        )
    return " ".join([*sentences, "Keep the old keys."])
