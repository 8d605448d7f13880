"""The sandbox's webhooks after a start on other ports."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from webhooks.management import sandbox
from webhooks.models import OAuthToken, Webhook, may_be_sent_to

pytestmark = pytest.mark.django_db


def addresses(port: int) -> sandbox.Addresses:
    hosts = (f"http://127.0.0.1:{port + more}" for more in range(3))
    callback, receiver, provider = hosts
    return sandbox.Addresses(receiver=receiver, provider=provider, callback=callback)


def test_secrets_and_tokens_go_on_to_the_sandbox_on_other_ports(
    tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.DATA_DIR = tmp_path
    monkeypatch.setattr(sandbox, "send_secret", lambda *given: None)
    sandbox.prepare_webhooks(addresses(8000))
    credential = Webhook.objects.get(name__contains="OAuth").credential
    OAuthToken.objects.create(credential=credential, state="valid", access_token="a-token")
    sandbox.prepare_webhooks(addresses(9000))
    for webhook in Webhook.objects.all():
        assert webhook.url.startswith("http://127.0.0.1:9001/")
        assert may_be_sent_to(webhook.credential, webhook.url)
    token = OAuthToken.objects.select_related("credential").get()
    assert token.bound_origins == token.credential.token_origins
    assert token.access_token == "a-token"
    assert json.loads((tmp_path / "sandbox.json").read_text()) == asdict(addresses(9000))
