"""Base of commands that escape control characters in their error messages."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from webhooks.delivery.requests import printable


class PrintableCommand(BaseCommand):
    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        refuse = parser.error
        parser.error = lambda message: refuse(printable(message))  # type: ignore[method-assign]
        return parser
