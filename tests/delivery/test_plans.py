"""Plans of many webhooks: their rows are read together, and nothing is read twice."""

from collections.abc import Sequence

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.factories import make_webhook
from webhooks.delivery import plans
from webhooks.delivery.engine import DrainCache
from webhooks.delivery.plans import PlanEntry, Plans
from webhooks.delivery.queue.rows import Candidate
from webhooks.models import OAuthToken, TokenState, Webhook
from webhooks.security import key_check
from webhooks.security.encryption import Sealed

pytestmark = pytest.mark.django_db


def some_of_each_kind(count: int) -> list[Webhook]:
    made = []
    for number in range(count):
        basic = {"authorization_type": "basic", "basic_login": "a", "basic_password": "secret"}
        template = {"body_template": '{"id": "{{ call_id }}"}', "success_codes": [200]}
        headers = '[{"name": "X-Key", "value": "top-secret", "secret": true}]'
        kinds = [{}, basic, template, {"headers_json": headers}]
        made += [make_webhook(name=f"{number} {kind}", **kind) for kind in kinds]
        webhook = make_webhook(
            name=f"{number} OAuth",
            authorization_type="oauth2",
            grant_type="client_credentials",
            token_url="http://127.0.0.1:9/token",
            client_id="c",
            client_secret="secret",
        )
        token = OAuthToken(credential=webhook.credential, version=1, state=TokenState.VALID)
        token.access_token, token.bound_origins = "an-access-token", ["http://127.0.0.1:9"]
        token.save()
        made.append(webhook)
    return made


def plans_of(webhooks: Sequence[Webhook]) -> list[PlanEntry]:
    made = Plans()
    made.make(
        [Candidate(one.pk, one.version_sent, 1, 0, True, False, False, False) for one in webhooks]
    )
    found = [made.entries[one.pk] for one in webhooks]
    made.close()
    return found


def test_plans_of_many_are_made_with_as_many_queries_as_those_of_few() -> None:
    key_check.require()
    few, many = some_of_each_kind(1), some_of_each_kind(5)
    counts = []
    for webhooks in (few, many):
        with CaptureQueriesContext(
            connection,
        ) as asked:
            entries = plans_of(webhooks)
        assert all(entry.plan for entry in entries)
        counts.append(len(asked))
    assert counts[0] == counts[1] <= 2


def test_each_secret_of_a_webhook_is_decrypted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    webhook = some_of_each_kind(1)[0]
    key_check.require()
    opened: list[str] = []
    open_sealed = Sealed.open

    def note(self: Sealed, place: str) -> str:
        if self:
            opened.append(place)
        return open_sealed(self, place)

    monkeypatch.setattr(Sealed, "open", note)
    [entry] = plans_of([webhook])
    assert entry.plan is not None
    assert len(opened) == len(set(opened)) == 1


def test_no_secret_and_no_origin_of_one_is_left_out_of_what_plans_are_made_from() -> None:
    """A secret that is missing here would count as bound to every receiver."""
    webhook = some_of_each_kind(1)[0]
    [read] = plans.rows_of([webhook.pk])[0].values()
    for row, whole in ((read, webhook), (read.credential, webhook.credential)):
        names = {field.attname for field in whole.secret_fields()} | {"secret_origins"}
        assert names <= row.__dict__.keys()
        for name in names:
            assert getattr(row, name) == getattr(whole, name)


def test_a_plan_of_many_is_that_of_the_whole_row() -> None:
    key_check.require()
    made = some_of_each_kind(1)
    rows, _tokens = plans.rows_of([one.pk for one in made])
    for whole in Webhook.objects.select_related("credential").filter(pk__in=rows):
        read = rows[whole.pk]
        assert read == whole
        assert read.credential == whole.credential
        for row, other in ((read, whole), (read.credential, whole.credential)):
            assert not row._state.adding
            known = {name: other.__dict__[name] for name in row.__dict__ if name[0] != "_"}
            assert {name: row.__dict__[name] for name in known} == known


def test_plans_outlast_short_drains_and_are_forgotten_when_not_used() -> None:
    key_check.require()
    webhook = some_of_each_kind(1)[0]
    candidate = Candidate(webhook.pk, webhook.version_sent, 0, 0, True, False, False, False)
    cache = DrainCache()
    cache.plans.make([candidate])
    for _ in range(3):
        cache.hand_over()
    assert cache.plans.get(candidate) is not None
    for known in (True, True, False):
        assert bool(cache.plans.entries or cache.plans.before) is known
        cache.plans.hand_over(forgets=True)
    cache.close()
