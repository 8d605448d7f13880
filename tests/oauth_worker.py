"""The worker processes of the refresh race: `python -m tests.oauth_worker 8`.

Started by tests.oauth.test_processes with its own database. Each connection to the printed port
gets its own process, which reads one JSON command per line. Processes are forked, because the
imports take longer than the race.
"""

import json
import os
import socket
import sys
from datetime import timedelta
from typing import Any

import django
import requests

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup()

# Models can only be imported after `django.setup()`.
from django.contrib.auth import get_user_model  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connections  # noqa: E402
from django.utils import timezone  # noqa: E402

from webhooks import oauth  # noqa: E402
from webhooks.delivery.auth import BearerAuthorization  # noqa: E402
from webhooks.models import Credential, OAuthExchange, OAuthToken, Webhook  # noqa: E402

SESSION = "the-session-of-the-race"


def begin(fields: dict[str, Any], secret: str) -> dict[str, Any]:
    """Make a webhook with its credential; return the authorization URL for its browser."""
    webhook = Webhook(name="Race", url=fields.pop("url"))
    credential = webhook.credential
    credential.authorization_type = "oauth2"
    for name, value in fields.items():
        setattr(credential, name, value)
    credential.set_secret("client_secret", secret)
    webhook.save()
    user = get_user_model().objects.create(username="racer")
    return {"url": oauth.begin_authorization(credential, user=user, session_key=SESSION)}


def finish(query: dict[str, list[str]]) -> dict[str, Any]:
    user = get_user_model().objects.get()
    credential = oauth.finish_authorization(query, user=user, session_key=SESSION)
    return {"version": OAuthToken.objects.get(credential=credential).version}


def expire() -> dict[str, Any]:
    """Set the stored token's expiry in the past."""
    OAuthToken.objects.update(expires_at=timezone.now() - timedelta(minutes=1))
    return {}


def use(url: str, dead_version: int | None) -> dict[str, Any]:
    """Get a token, after marking a refused version if given, and send it once."""
    credential = Credential.objects.get()
    if dead_version is not None:
        oauth.record_refusal(credential.pk, dead_version)
    token = oauth.usable_token(credential.pk)
    header = BearerAuthorization(token.access_token, credential.header_prefix).header
    with requests.Session() as session:
        session.trust_env = False
        sent = session.post(url, headers={"Authorization": header}, timeout=30)
    return {"version": token.version, "status": sent.status_code}


def refresh_manually() -> dict[str, Any]:
    """Refresh the token as the button on the page does."""
    return {"version": oauth.refresh(Credential.objects.get()).version}


def count() -> dict[str, Any]:
    kinds = list(OAuthExchange.objects.values_list("kind", "result"))
    return {"exchanges": kinds, "state": OAuthToken.objects.get().state}


COMMANDS = {
    "begin": begin,
    "finish": finish,
    "expire": expire,
    "use": use,
    "refresh_manually": refresh_manually,
    "count": count,
}


def main() -> None:
    call_command("migrate", verbosity=0)
    connections.close_all()
    count = int(sys.argv[1])
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        for _ in range(count):
            connection, _address = server.accept()
            with connection:
                if os.fork() == 0:
                    server.close()
                    obey(connection)
                    os._exit(0)
    for _ in range(count):
        os.wait()


def obey(connection: socket.socket) -> None:
    with connection.makefile("rw") as lines:
        for line in lines:
            command = json.loads(line)
            try:
                answer = COMMANDS[command.pop("do")](**command)
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), file=lines, flush=True)


if __name__ == "__main__":
    main()
