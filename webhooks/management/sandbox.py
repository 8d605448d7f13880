"""The sandbox of `manage.py run`: two child processes, and two webhooks to try them with.

The servers are in `tests.sandbox`, independent of the product, and are started as commands. This
module therefore puts their URLs and demo credentials into the product's rows.
"""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management.base import CommandError
from django.urls import reverse
from django.utils.translation import gettext as _

from webhooks import catalogue
from webhooks.models import AUTHORIZATION_FIELDS, AuthorizationType, OAuthToken, Webhook

_START_SECONDS = 30
_STOP_SECONDS = 5
# The environment of the children, without the product's keys, database or broker.
_ENVIRONMENT = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
# Not secret: both servers listen on loopback only.
_BASIC_LOGIN, _BASIC_PASSWORD = "demo-login", "demo-password"
_CLIENT_ID, _CLIENT_SECRET = "sandbox-client", "sandbox-secret"
_SCOPE = "events:write offline_access"


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """The URLs of both servers, and the product's callback URL."""

    receiver: str
    provider: str
    callback: str


@contextmanager
def running(port: int) -> Iterator[Addresses]:
    """Run the receiver on `port` and the provider on the one after it, until the block ends."""
    callback = settings.PUBLIC_URL + reverse("webhooks:oauth_callback")
    database = settings.DATA_DIR / "sandbox-provider.sqlite3"
    provider = ["--port", str(port + 1), "--callback", callback, "--database", str(database)]
    with ExitStack() as stack:
        provider_url = stack.enter_context(_child("tests.sandbox.provider", provider))
        receiver = ["--port", str(port), "--provider", provider_url]
        receiver_url = stack.enter_context(_child("tests.sandbox.receiver", receiver))
        yield Addresses(receiver=receiver_url, provider=provider_url, callback=callback)


@contextmanager
def _child(module: str, arguments: list[str]) -> Iterator[str]:
    """Start one server and yield the URL it announces; stop the process afterwards."""
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", module, *arguments, "--exit-with-stdin"],
        cwd=settings.BASE_DIR,
        env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Ctrl-C must not reach the sandbox, which responds until deliveries have finished.
        start_new_session=True,
    )
    with process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().decode().strip().rpartition(" listening on ")[2]
            if not url:
                raise CommandError(
                    f"The sandbox ({module}) did not start; the lines above say why. "
                    "Its packages are in requirements-dev.txt. "
                    "To do without it: SANDBOX=0 make run."
                )
            yield url
        finally:
            process.terminate()
            try:
                process.wait(timeout=_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def prepare_webhooks(addresses: Addresses) -> bool:
    """Create the two webhooks if there are none at all; return whether sandbox webhooks exist.

    On a later start with other ports, the URLs of the earlier start are replaced in all rows.
    """
    remembered = settings.DATA_DIR / "sandbox.json"
    if not Webhook.objects.exists():
        _create_webhooks(addresses)
    elif remembered.is_file():
        _replace_addresses(json.loads(remembered.read_text()), asdict(addresses))
    _write(remembered, asdict(addresses))
    webhooks = Webhook.objects.present().filter(url__startswith=addresses.receiver + "/")
    for webhook in webhooks:
        send_secret(addresses.receiver, webhook.signing_secret)
    return bool(webhooks)


def _create_webhooks(addresses: Addresses) -> None:
    calls = [group.wildcard for group in catalogue.groups() if group.key.startswith("call.")]
    basic = Webhook(
        name=_("Sandbox: Basic authentication"),
        url=f"{addresses.receiver}/basic/",
        event_types=calls,
    )
    basic.credential.authorization_type = AuthorizationType.BASIC
    basic.credential.basic_login = _BASIC_LOGIN
    basic.credential.set_secret("basic_password", _BASIC_PASSWORD)
    basic.save()
    oauth = Webhook(
        name=_("Sandbox: OAuth 2.0"),
        url=f"{addresses.receiver}/bearer/",
        event_types=calls,
    )
    oauth.credential.authorization_type = AuthorizationType.OAUTH2
    oauth.credential.token_name = _("Sandbox token")
    oauth.credential.callback_url = addresses.callback
    oauth.credential.auth_url = f"{addresses.provider}/authorize/"
    oauth.credential.token_url = f"{addresses.provider}/token/"
    oauth.credential.revocation_url = f"{addresses.provider}/revoke/"
    oauth.credential.client_id = _CLIENT_ID
    oauth.credential.scope = _SCOPE
    oauth.credential.set_secret("client_secret", _CLIENT_SECRET)
    oauth.save()


def _replace_addresses(old: Mapping[str, str], new: Mapping[str, str]) -> None:
    if old == new:
        return
    moved = {
        "url": "receiver",
        "auth_url": "provider",
        "token_url": "provider",
        "revocation_url": "provider",
        "callback_url": "callback",
    }
    origins = {old[name]: new[name] for name in ("receiver", "provider")}
    for webhook in Webhook.objects.present().filter(url__startswith=old["receiver"] + "/"):
        credential = webhook.private_credential
        for field, name in moved.items():
            row = credential if field in AUTHORIZATION_FIELDS else webhook
            value: str = getattr(row, field)
            if value.startswith(old[name]):
                setattr(row, field, new[name] + value.removeprefix(old[name]))
        for row in (credential, webhook):
            row.secret_origins = {
                field: _replaced(bound, origins) for field, bound in row.secret_origins.items()
            }
        columns = moved.keys() & AUTHORIZATION_FIELDS.keys()
        credential.save(update_fields={*columns, "secret_origins"})
        webhook.save(update_fields=["url", "secret_origins"])
        for token in OAuthToken.objects.filter(credential=credential):
            token.bound_origins = _replaced(token.bound_origins, origins)
            token.save(update_fields=["bound_origins"])


def _replaced(bound: list[str], origins: Mapping[str, str]) -> list[str]:
    """Return the origins that a secret or token is bound to, with the sandbox's replaced."""
    return [origins.get(one, one) for one in bound]


def send_secret(receiver_url: str, secret: str) -> None:
    """Give the receiver a signing secret to verify signatures with.

    Not as a command line argument, which every user of the machine could read.
    """
    connection = http.client.HTTPConnection(urlsplit(receiver_url).netloc, timeout=_START_SECONDS)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/_secret", json.dumps({"secret": secret}), headers)
        connection.getresponse().read()
    finally:
        connection.close()


def _write(path: Path, value: object) -> None:
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(value))
    unfinished.replace(path)
