"""Serve the OAuth 2.0 provider: `python -m tests.sandbox.provider --port 8002 --callback URL`."""

import argparse
import os
import tempfile
from pathlib import Path

import django
from django.apps import apps
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.management import call_command
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from tests.sandbox.loopback import HOST, LoopbackServer, add_serving_arguments, serve
from tests.sandbox.provider.faults import set_token_seconds
from tests.sandbox.provider.options import Options


class ProviderHandler(WSGIRequestHandler):
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        """Write no access log, because it would contain states and codes."""


class ProviderServer(LoopbackServer, ThreadedWSGIServer):
    block_on_close = False

    def server_bind(self) -> None:
        super().server_bind()
        self.setup_environ()


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="sandbox-provider-") as directory:
        # Bound before `django.setup()`, because the settings need the port for the issuer.
        server = ProviderServer((HOST, arguments.port), ProviderHandler)
        options = Options(
            url=server.url,
            database=arguments.database or str(Path(directory) / "provider.sqlite3"),
            callback_urls=arguments.callback,
            token_seconds=arguments.token_seconds,
            grace_seconds=arguments.grace_seconds,
            is_pkce_required=arguments.pkce_required,
            is_rotating=arguments.rotate,
            is_reuse_punished=arguments.reuse_protection,
        )
        set_up(options)
        server.set_app(StaticFilesHandler(get_wsgi_application()))
        serve("Provider", server, exit_with_stdin=arguments.exit_with_stdin)


def set_up(options: Options) -> None:
    """Configure Django for these options and migrate the database."""
    options.export()
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.sandbox.provider.settings"
    set_token_seconds(options.token_seconds)
    django.setup()
    if connection.introspection.table_names():
        call_command("migrate", verbosity=0, interactive=False)
    else:
        make_tables()
    # Models can only be imported after `django.setup()`.
    from tests.sandbox.provider.registration import register

    register(options.callback_urls)


def make_tables() -> None:
    """Create the tables of a new database from the models; migrations would take seconds."""
    with connection.schema_editor() as editor:
        for model in apps.get_models():
            editor.create_model(model)
    recorder = MigrationRecorder(connection)
    recorder.ensure_schema()
    for app, name in MigrationLoader(connection).disk_migrations:
        recorder.record_applied(app, name)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sandbox.provider", description=__doc__)
    add_serving_arguments(parser, port=8002)
    parser.add_argument(
        "--callback",
        action="append",
        default=[],
        metavar="URL",
        help="a redirect URI of the clients; may be repeated",
    )
    parser.add_argument("--database", metavar="PATH", help="kept; a temporary file without it")
    parser.add_argument("--token-seconds", type=int, default=3600, help="life of access tokens")
    parser.add_argument(
        "--grace-seconds", type=int, default=0, help="how long a used refresh token still works"
    )
    flag = argparse.BooleanOptionalAction
    parser.add_argument("--pkce-required", action=flag, default=False)
    parser.add_argument("--rotate", action=flag, default=True, help="single-use refresh tokens")
    parser.add_argument(
        "--reuse-protection",
        action=flag,
        default=True,
        help="using a refresh token twice revokes all that came from it",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
