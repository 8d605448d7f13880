"""Stored tokens: which process refreshes, when, how often, and what is recorded each time."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.db.models.functions import Now
from django.utils import timezone

from tests.factories import change
from tests.oauth_fakes import FakeProvider, ReceivedRequest, Reply, token
from tests.oauth_rows import (
    SESSION,
    authorize,
    begin,
    connect,
    make_credential,
    make_machine_credential,
    make_token,
    make_user,
    token_after_refusal,
)
from tests.sandbox import Provider
from webhooks import oauth
from webhooks.models import Credential, HoldReason, OAuthExchange, OAuthToken
from webhooks.oauth import tokens
from webhooks.security.encryption import Sealed

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def fake(fake: FakeProvider) -> FakeProvider:
    fake.reply(token(refresh_token="fresh-refresh", expires_in=3600))
    return fake


def credential_at(fake: FakeProvider, **fields: Any) -> Credential:
    return make_credential(token_url=fake.token_url, **fields)


def stored() -> OAuthToken:
    return OAuthToken.objects.get()


@pytest.mark.django_db
class TestWhen:
    def test_living_token_is_used_as_it_is(self, fake: FakeProvider) -> None:
        credential = credential_at(fake)
        make_token(credential, now=NOW)

        usable = oauth.usable_token(credential.pk, now=NOW + timedelta(minutes=58))

        assert (usable.access_token, usable.version) == ("an-access-token-0001", 1)
        assert fake.requests == []

    @pytest.mark.parametrize(
        ("life", "margin"),
        [(3600, 60), (1800, 60), (600, 60), (599, 59.9), (100, 10), (10, 1), (86_400, 60)],
    )
    def test_margin_is_a_tenth_of_the_life_and_at_most_a_minute(
        self, fake: FakeProvider, life: float, margin: float
    ) -> None:
        credential = credential_at(fake)
        make_token(credential, now=NOW, expires_at=NOW + timedelta(seconds=life))
        due = NOW + timedelta(seconds=life - margin)

        before = oauth.usable_token(credential.pk, now=due - timedelta(milliseconds=1))
        after = oauth.usable_token(credential.pk, now=due)

        assert oauth.refresh_margin(before) == pytest.approx(margin)
        assert (before.version, after.version) == (1, 2)
        assert len(fake.requests) == 1

    def test_token_of_unknown_life_is_refreshed_only_when_it_was_refused(
        self, fake: FakeProvider
    ) -> None:
        credential = credential_at(fake)
        make_token(credential, now=NOW, expires_at=None)

        years_later = oauth.usable_token(credential.pk, now=NOW + timedelta(days=3650))
        refused = token_after_refusal(credential, years_later.version)

        assert (years_later.version, refused.version) == (1, 2)
        assert oauth.refresh_margin(years_later) == 0
        assert len(fake.requests) == 1

    def test_life_counts_from_the_answer(self, fake: FakeProvider) -> None:
        credential = credential_at(fake)
        make_token(credential, now=NOW)

        oauth.usable_token(credential.pk, now=NOW + HOUR)

        assert stored().expires_at == NOW + 2 * HOUR
        assert stored().refreshed_at == NOW + HOUR
        assert stored().obtained_at == NOW

    def test_life_of_a_refreshed_token_gives_its_margin(self, fake: FakeProvider) -> None:
        credential = credential_at(fake)
        make_token(credential, now=NOW)
        fake.reply(token(expires_in=100))

        oauth.usable_token(credential.pk, now=NOW + HOUR)

        assert tokens.refresh_at(stored()) == NOW + HOUR + timedelta(seconds=90)

    @pytest.mark.parametrize("expires_in", [-5, "-1", -(10**9)])
    def test_token_that_is_born_expired_is_refreshed_once_and_not_in_a_loop(
        self, fake: FakeProvider, expires_in: object
    ) -> None:
        credential = credential_at(fake)
        fake.reply(token(refresh_token="r", expires_in=expires_in))
        authorize(credential)

        versions = [oauth.usable_token(credential.pk).version for _ in range(5)]

        assert versions == [2] * 5
        assert len(fake.requests) == 2
        assert "expired already" in oauth.sentence(stored().warning)
        assert stored().expires_at is None

    def test_token_that_is_born_expired_and_cannot_be_refreshed_is_tried(
        self, fake: FakeProvider
    ) -> None:
        credential = credential_at(fake)
        fake.reply(token(expires_in=-5))
        authorize(credential)

        assert oauth.usable_token(credential.pk).access_token == "fresh-token"
        assert "expired already" in oauth.sentence(stored().warning)

    def test_repr_of_a_token_hides_it(self, fake: FakeProvider) -> None:
        credential = credential_at(fake)
        make_token(credential)

        assert "an-access-token" not in repr(oauth.usable_token(credential.pk))


@pytest.mark.django_db
class TestOutcomes:
    def refresh(self, credential: Credential) -> oauth.UsableToken:
        return oauth.usable_token(credential.pk, now=NOW + HOUR)

    def test_success_writes_everything_at_once(self, fake: FakeProvider) -> None:
        credential = credential_at(fake)
        make_token(
            credential,
            now=NOW,
            refresh_failures=2,
            retry_refresh_at=NOW,
            last_error="It failed.",
            state="expiring",
            granted_scope="a b",
        )

        usable = self.refresh(credential)

        row = stored()
        assert (usable.access_token, usable.version) == ("fresh-token", 2)
        assert (row.access_token, row.refresh_token) == ("fresh-token", "fresh-refresh")
        assert (row.state, row.version, row.granted_scope) == ("valid", 2, "a b")
        assert (row.refresh_lease, row.refresh_lease_until) == ("", None)
        assert (row.refresh_failures, row.retry_refresh_at, row.last_error) == (0, None, "")
        assert fake.requests[0].fields["refresh_token"] == "a-refresh-token-0001"

    def test_old_refresh_token_stays_when_none_is_returned(self, fake: FakeProvider) -> None:
        credential = credential_at(fake)
        make_token(credential, now=NOW, refresh_token_expires_at=NOW + 100 * HOUR)
        fake.reply(token(expires_in=3600))

        self.refresh(credential)

        assert stored().refresh_token == "a-refresh-token-0001"
        assert stored().refresh_token_expires_at == NOW + 100 * HOUR

    @pytest.mark.parametrize(
        ("fields", "is_said"), [({}, True), ({"scope": "a"}, True), ({"scope": "a b"}, False)]
    )
    def test_scope_that_was_not_granted_is_said_until_it_is(
        self, fake: FakeProvider, fields: dict[str, str], is_said: bool
    ) -> None:
        credential = credential_at(fake, scope="a b")
        fake.reply(token(refresh_token="r", scope="a"), token(**fields))
        authorize(credential)

        oauth.refresh(credential)

        assert stored().granted_scope == fields.get("scope", "a")
        assert ("Not granted" in oauth.sentence(stored().warning)) is is_said

    def test_life_of_a_new_refresh_token_is_stored(self, fake: FakeProvider) -> None:
        credential = credential_at(fake)
        make_token(credential, now=NOW)
        fake.reply(token(refresh_token="r", refresh_token_expires_in=60))

        self.refresh(credential)

        assert stored().refresh_token_expires_at == NOW + HOUR + timedelta(minutes=1)

    def test_tokens_are_stored_encrypted_for_their_own_row(self, fake: FakeProvider) -> None:
        credential = credential_at(fake)
        make_token(credential, now=NOW)

        self.refresh(credential)

        with connection.cursor() as cursor:
            cursor.execute("SELECT access_token, refresh_token FROM webhooks_oauthtoken")
            raw = repr(cursor.fetchall())
        assert "fresh" not in raw
        assert stored().access_token == "fresh-token"

    @pytest.mark.parametrize(
        "reply",
        [
            Reply(status=500),
            Reply(status=503, body=b"<html>Oops"),
            Reply(status=429),
            Reply(status=403, body=b"<html>", headers={"Content-Type": "text/html"}),
            Reply(raw=b""),
            Reply(status=400, body={"error": "temporarily_unavailable"}),
            Reply(status=500, body={"access_token": "T"}),
            Reply(status=500, body={"error": "invalid_grant"}),
            Reply(status=423, body=b"Locked"),
            Reply(status=499),
        ],
    )
    def test_transient_failure_keeps_the_grant_and_waits(
        self, fake: FakeProvider, reply: Reply
    ) -> None:
        credential = credential_at(fake)
        make_token(credential, now=NOW)
        fake.reply(reply)

        with pytest.raises(oauth.TokenUnavailableError) as failure:
            self.refresh(credential)
        with pytest.raises(oauth.TokenUnavailableError):
            self.refresh(credential)

        row = stored()
        assert failure.value.hold_reason is None
        assert not failure.value.permanent
        assert failure.value.retry_at == row.retry_refresh_at
        assert (row.state, row.version, row.refresh_failures) == ("expiring", 1, 1)
        assert row.refresh_token == "a-refresh-token-0001"
        assert row.refresh_lease == ""
        assert "retried automatically" in oauth.sentence(row.last_error)
        # The second call sent nothing to the provider.
        assert len(fake.requests) == 1

    IN_FRONT = [
        Reply(body=b"<html>Down for maintenance", headers={"Content-Type": "text/html"}),
        Reply(body=b"It works!", headers={"Content-Type": "text/plain"}),
        Reply(status=302, headers={"Location": "https://status.example/"}),
        Reply(status=302, headers={"Location": "http://status.example/#down"}),
        Reply(status=404, body=b"<html>nginx", headers={"Content-Type": "text/html"}),
        Reply(status=404, body={"message": "no Route matched with those values"}),
        Reply(status=415),
        Reply(status=404, body={"status": 404, "error": "Not Found", "path": "/token"}),
        Reply(status=204),
        Reply(body=b"x" * 70_000),
        Reply(body=b"[]"),
        Reply(body=b'{"access_token": "T", "tok'),
    ]

    @pytest.mark.parametrize("reply", IN_FRONT)
    def test_page_in_front_of_an_endpoint_that_worked_is_an_outage(
        self, fake: FakeProvider, reply: Reply
    ) -> None:
        credential = credential_at(fake)
        make_token(credential, now=NOW, is_single_use=False)
        fake.reply(reply)

        with pytest.raises(oauth.TokenUnavailableError, match="retried automatically") as failure:
            self.refresh(credential)

        row = stored()
        assert (failure.value.hold_reason, failure.value.retry_at) == (None, row.retry_refresh_at)
        assert (row.state, row.refresh_token) == ("expiring", "a-refresh-token-0001")
        assert OAuthExchange.objects.all()[0].result == "transient"
        # The end of the outage needs no action by a person.
        fake.reply(token(expires_in=3600))
        assert row.retry_refresh_at is not None
        assert oauth.usable_token(credential.pk, now=row.retry_refresh_at).version == 2

    @pytest.mark.parametrize("reply", IN_FRONT)
    def test_page_that_stays_is_a_wrong_address(self, fake: FakeProvider, reply: Reply) -> None:
        credential = credential_at(fake)
        make_token(credential, now=NOW, is_single_use=False, refresh_failures=1440)
        fake.reply(reply)

        with pytest.raises(oauth.TokenUnavailableError) as failure:
            self.refresh(credential)

        assert failure.value.hold_reason == HoldReason.MISCONFIGURED

    def test_address_that_never_worked_is_wrong_at_once(self, fake: FakeProvider) -> None:
        fake.reply(self.IN_FRONT[0])
        never_refreshed = credential_at(fake, refresh_url=f"{fake.url}/refresh")
        machine = credential_at(fake, grant_type="client_credentials")
        make_token(never_refreshed, now=NOW)

        for credential in (never_refreshed, machine):
            with pytest.raises(oauth.TokenUnavailableError) as failure:
                self.refresh(credential)
            assert failure.value.hold_reason == HoldReason.MISCONFIGURED

    @pytest.mark.parametrize(
        "reply",
        [
            Reply(status=400, body={"error": "made_up"}),
            Reply(status=404, body={"error": "app_gone"}),
            Reply(body={"message": "no"}),
        ],
    )
    def test_refusal_of_the_endpoint_is_no_outage(self, fake: FakeProvider, reply: Reply) -> None:
        credential = credential_at(fake)
        make_token(credential, now=NOW)
        fake.reply(reply)

        with pytest.raises(oauth.TokenUnavailableError) as failure:
            self.refresh(credential)

        assert failure.value.hold_reason == HoldReason.MISCONFIGURED

    def test_waits_grow_from_five_seconds_to_a_minute(self, fake: FakeProvider) -> None:
        credential = credential_at(fake)
        make_token(credential, now=NOW)
        fake.reply(Reply(status=503))
        now, waits = NOW + HOUR, []

        for _ in range(9):
            with pytest.raises(oauth.TokenUnavailableError) as failure:
                oauth.usable_token(credential.pk, now=now)
            assert failure.value.retry_at is not None
            waits.append((failure.value.retry_at - now).total_seconds())
            now = failure.value.retry_at

        assert len(fake.requests) == 9
        for wait, base in zip(waits, [5, 10, 20, 40, 60, 60, 60, 60, 60], strict=True):
            assert base <= wait <= base * 1.1
        assert len(set(waits[4:])) > 1

    def test_retry_after_is_honoured(self, fake: FakeProvider) -> None:
        credential = credential_at(fake)
        make_token(credential, now=NOW)
        fake.reply(Reply(status=429, headers={"Retry-After": "120"}))

        with pytest.raises(oauth.TokenUnavailableError) as failure:
            self.refresh(credential)

        assert failure.value.retry_at is not None
        wait = (failure.value.retry_at - NOW - HOUR).total_seconds()
        assert 120 <= wait <= 120 * 1.1

    def test_credentials_that_a_provider_turns_away_together_ask_again_apart(
        self, fake: FakeProvider
    ) -> None:
        fake.reply(Reply(status=429, headers={"Retry-After": "3600"}))
        times = set()
        for _ in range(5):
            credential = credential_at(fake)
            make_token(credential, now=NOW)
            with pytest.raises(oauth.TokenUnavailableError) as failure:
                self.refresh(credential)
            times.add(failure.value.retry_at)
            with pytest.raises(oauth.TokenUnavailableError):
                self.refresh(credential)

        assert len(times) > 1
        assert len(fake.requests) == 5

    def test_retry_after_outlasts_a_person_who_asks_sooner(self, fake: FakeProvider) -> None:
        credential = credential_at(fake)
        make_token(credential, now=NOW)
        fake.reply(Reply(status=429, headers={"Retry-After": "600"}), Reply(status=503))

        for ask in (self.refresh, lambda one: oauth.refresh(one, now=NOW + HOUR)):
            with pytest.raises(oauth.TokenUnavailableError):
                ask(credential)

        retry_at = stored().retry_refresh_at
        assert retry_at is not None
        assert timedelta(minutes=10) <= retry_at - NOW - HOUR <= timedelta(minutes=11)

    def test_wait_is_by_the_clock_that_wrote_it(
        self, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A machine whose clock is ahead of the database's asks again as soon as any other."""
        clock, real = [timedelta(minutes=5)], timezone.now
        monkeypatch.setattr(timezone, "now", lambda: real() + clock[0])
        credential = credential_at(fake)
        make_token(credential, now=timezone.now() - HOUR)
        fake.reply(Reply(status=503), token(expires_in=3600))
        with pytest.raises(oauth.TokenUnavailableError):
            oauth.usable_token(credential.pk)

        clock[0] += timedelta(seconds=10)

        assert oauth.usable_token(credential.pk).version == 2

    def test_wait_of_a_clock_that_was_set_back_is_none(self, fake: FakeProvider) -> None:
        """A machine whose clock was a day ahead would otherwise send nothing for that day."""
        credential = credential_at(fake)
        make_token(credential, now=NOW - HOUR, retry_refresh_at=NOW + timedelta(days=1))

        assert oauth.refresh_expiring(now=NOW) == 1
        assert oauth.usable_token(credential.pk, now=NOW).version == 2

    def test_token_that_still_lives_is_used_when_its_refresh_fails(
        self, fake: FakeProvider
    ) -> None:
        credential = credential_at(fake)
        make_token(credential, now=NOW)
        fake.reply(Reply(status=503))

        usable = oauth.usable_token(credential.pk, now=NOW + timedelta(minutes=59, seconds=30))

        assert (usable.version, stored().state) == (1, "expiring")

    def test_refused_token_is_not_used_when_its_refresh_fails(self, fake: FakeProvider) -> None:
        credential = credential_at(fake)
        make_token(credential, now=NOW)
        fake.reply(Reply(status=503))

        with pytest.raises(oauth.TokenUnavailableError) as failure:
            token_after_refusal(credential, 1, now=NOW)

        assert failure.value.hold_reason is None

    @pytest.mark.parametrize(
        ("body", "state", "reason"),
        [
            ({"error": "invalid_grant"}, "needs_reauthorization", HoldReason.REAUTHORIZATION),
            ({"error": "invalid_client"}, "misconfigured", HoldReason.MISCONFIGURED),
            ({"error": "unauthorized_client"}, "misconfigured", HoldReason.MISCONFIGURED),
            ({"error": "made_up"}, "misconfigured", HoldReason.MISCONFIGURED),
        ],
    )
    def test_refusal_holds_until_a_person_acts(
        self, fake: FakeProvider, body: dict[str, str], state: str, reason: HoldReason
    ) -> None:
        credential = credential_at(fake)
        make_token(credential, now=NOW)
        fake.reply(Reply(status=400, body=body))

        for _ in range(3):
            with pytest.raises(oauth.TokenUnavailableError) as failure:
                self.refresh(credential)
            assert failure.value.hold_reason == reason
            assert failure.value.permanent
            assert failure.value.message == stored().last_error

        assert (stored().state, stored().version) == (state, 1)
        assert stored().has_refresh_token()
        assert len(fake.requests) == 1

    def test_words_of_the_webhook_hold_it(self, fake: FakeProvider) -> None:
        credential = credential_at(fake, reauthorization_words=["withdrawn"])
        make_token(credential, now=NOW)
        fake.reply(Reply(status=422, body={"hint": "Token withdrawn"}))

        with pytest.raises(oauth.TokenUnavailableError) as failure:
            self.refresh(credential)

        assert failure.value.hold_reason == HoldReason.REAUTHORIZATION

    def test_settings_that_cannot_be_sent_hold_without_a_request(self, fake: FakeProvider) -> None:
        credential = credential_at(fake, refresh_parameters={"grant_type": "password"})
        make_token(credential, now=NOW)

        with pytest.raises(oauth.TokenUnavailableError, match="“grant_type”") as failure:
            self.refresh(credential)

        assert failure.value.hold_reason == HoldReason.MISCONFIGURED
        assert fake.requests == []

    def test_expired_token_without_a_refresh_token_needs_a_person(self, fake: FakeProvider) -> None:
        credential = credential_at(fake)
        make_token(credential, now=NOW, refresh_token="")

        nearly = oauth.usable_token(credential.pk, now=NOW + HOUR - timedelta(seconds=1))
        with pytest.raises(oauth.TokenUnavailableError, match="no refresh token") as failure:
            self.refresh(credential)

        assert nearly.version == 1
        assert failure.value.hold_reason == HoldReason.REAUTHORIZATION
        assert stored().state == "needs_reauthorization"

    @pytest.mark.parametrize("ahead", [HOUR, timedelta(days=3653)])
    def test_clock_that_is_ahead_ends_no_token_without_a_refresh_token(
        self, ahead: timedelta, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A person would have to authorize again, though nothing is wrong with the token."""
        credential, real = credential_at(fake), timezone.now
        make_token(credential, refresh_token="")
        monkeypatch.setattr(timezone, "now", lambda: real() + ahead)

        assert oauth.usable_token(credential.pk).version == 1
        assert stored().state == "valid"

    def test_refused_token_without_a_refresh_token_needs_a_person(self, fake: FakeProvider) -> None:
        credential = credential_at(fake)
        make_token(credential, refresh_token="", expires_at=None)

        with pytest.raises(oauth.TokenUnavailableError, match="receiver refused") as failure:
            token_after_refusal(credential, 1)

        assert failure.value.hold_reason == HoldReason.REAUTHORIZATION
        assert stored().state == "needs_reauthorization"

    def test_no_token_at_all_is_held_as_such(self, fake: FakeProvider) -> None:
        credential = credential_at(fake)

        for ask in (oauth.usable_token, lambda pk: oauth.refresh(credential)):
            with pytest.raises(oauth.TokenUnavailableError) as failure:
                ask(credential.pk)
            assert failure.value.hold_reason == HoldReason.NO_TOKEN


NOT_EXPIRED = Reply(
    status=400, body={"error": "invalid_grant", "error_description": "token not expired"}
)


@pytest.mark.django_db
class TestRefused:
    """After a 401: one refresh per token version, however many deliveries met it."""

    def test_version_that_was_replaced_already_is_not_refreshed(self, fake: FakeProvider) -> None:
        credential = credential_at(fake)
        make_token(credential, version=5)

        usable = token_after_refusal(credential, 4)

        assert usable.version == 5
        assert fake.requests == []

    def test_token_that_may_not_be_refreshed_yet_is_used_to_its_end(
        self, fake: FakeProvider
    ) -> None:
        credential = credential_at(fake)
        ends_at = make_token(credential, now=NOW).expires_at
        assert ends_at is not None
        fake.reply(NOT_EXPIRED, token(refresh_token="next"))

        versions = [
            oauth.usable_token(credential.pk, now=ends_at - timedelta(seconds=left)).version
            for left in (50, 40, 1, 0)
        ]

        assert versions == [1, 1, 1, 2]
        assert len(fake.requests) == 2

    def test_each_version_is_refreshed_once(self, fake: FakeProvider) -> None:
        credential = credential_at(fake)
        make_token(credential)

        versions = [token_after_refusal(credential, 1).version for _ in range(4)]

        assert versions == [2] * 4
        assert len(fake.requests) == 1

    def test_refused_version_is_used_by_no_process(self, fake: FakeProvider) -> None:
        credential = credential_at(fake)
        row = make_token(credential)
        oauth.record_refusal(credential.pk, row.version, webhook_id=7)
        oauth.record_refusal(credential.pk, row.version - 1, webhook_id=7)

        assert oauth.current_token(stored()) is None
        usable = oauth.usable_token(credential.pk)

        assert (usable.version, usable.refused_version, usable.refused_by) == (2, 1, (7,))
        assert usable.trial_ends_at is not None
        assert oauth.usable_token(credential.pk).version == 2
        assert len(fake.requests) == 1

    @pytest.mark.slow
    def test_hundreds_of_refusals_and_successes_are_noted_with_a_few_statements(
        self, fake: FakeProvider, django_assert_max_num_queries: Any
    ) -> None:
        """As when a provider revokes all tokens: the results of all webhooks wait for it."""
        credentials = [credential_at(fake) for _ in range(100)]
        for credential in credentials:
            make_token(credential)
        other = {credentials[0].pk: (2, 7)}
        with django_assert_max_num_queries(4):
            oauth.record_refusals({one.pk: (1, one.pk) for one in credentials} | other)
        noted = OAuthToken.objects.values_list("credential", "refused_version", "refused_by")
        assert set(map(repr, noted)) == {
            repr((one.pk, 1, [one.pk]) if one.pk not in other else (one.pk, 0, []))
            for one in credentials
        }

        OAuthToken.objects.update(version=2)
        with django_assert_max_num_queries(4):
            oauth.record_successes({one.pk: (2, one.pk) for one in credentials})
        assert not OAuthToken.objects.exclude(refused_version=0).exists()

    def test_trial_ends_with_a_success_of_who_was_refused(self, fake: FakeProvider) -> None:
        credential = credential_at(fake)
        make_token(credential)
        oauth.record_refusal(credential.pk, 1, webhook_id=7)
        oauth.usable_token(credential.pk)

        for webhook_id, version in ((8, 2), (7, 1)):
            oauth.record_successes({credential.pk: (version, webhook_id)})
            assert stored().refused_version == 1
        oauth.record_successes({credential.pk: (2, 7)})

        assert stored().refused_version == 0
        assert oauth.usable_token(credential.pk).trial_ends_at is None

    def test_token_that_its_provider_calls_alive_is_the_trouble_of_who_was_refused(
        self, fake: FakeProvider
    ) -> None:
        """hh.ru and Exact Online refresh no token before it expires."""
        credential = credential_at(fake)
        make_token(credential)
        fake.reply(NOT_EXPIRED, token(refresh_token="next"))
        oauth.record_refusal(credential.pk, 1, webhook_id=7)

        usable = oauth.usable_token(credential.pk, webhook_id=7)
        assert (usable.version, usable.is_refused()) == (1, False)
        assert usable.is_refused_only_by(7)
        assert not usable.is_refused_only_by(8)

        later = oauth.usable_token(credential.pk, now=timezone.now() + HOUR)
        assert (later.version, later.is_refused_only_by(7)) == (2, False)

    def test_token_that_its_provider_calls_alive_stays_for_the_others_when_a_second_refuses_it(
        self, fake: FakeProvider
    ) -> None:
        credential = credential_at(fake)
        make_token(credential)
        fake.reply(NOT_EXPIRED)
        for webhook_id in (7, 8):
            oauth.record_refusal(credential.pk, 1, webhook_id=webhook_id)
            usable = oauth.usable_token(credential.pk, webhook_id=webhook_id)
            assert usable.is_refused_only_by(webhook_id)

        assert oauth.usable_token(credential.pk, webhook_id=9).version == 1
        assert len(fake.requests) == 1

    def test_refusal_that_comes_late_is_the_trouble_of_who_was_refused(
        self, fake: FakeProvider
    ) -> None:
        """The request was in flight when another webhook got through with the same token."""
        credential = credential_at(fake)
        make_token(credential, refresh_token="")
        oauth.record_refusal(credential.pk, 1, webhook_id=7)
        with pytest.raises(oauth.TokenUnavailableError):
            oauth.usable_token(credential.pk, webhook_id=7)
        oauth.record_successes({credential.pk: (1, 8)})

        oauth.record_refusal(credential.pk, 1, webhook_id=7)

        assert (stored().refused_version, stored().refused_by) == (0, [7])
        assert oauth.usable_token(credential.pk, webhook_id=7).is_refused_only_by(7)

    def test_token_is_not_ended_by_who_read_it_before_another_got_through(
        self, fake: FakeProvider
    ) -> None:
        credential = credential_at(fake)
        make_token(credential, refresh_token="")
        oauth.record_refusal(credential.pk, 1, webhook_id=7)
        read_before = stored()
        with pytest.raises(oauth.TokenUnavailableError):
            oauth.usable_token(credential.pk, webhook_id=7)
        oauth.record_successes({credential.pk: (1, 8)})

        assert not tokens.store_ended(read_before, "ended")

        assert oauth.usable_token(credential.pk, webhook_id=8).version == 1

    def test_refused_token_waits_when_its_refresh_fails(self, fake: FakeProvider) -> None:
        credential = credential_at(fake)
        make_token(credential)
        oauth.record_refusal(credential.pk, 1)
        fake.reply(Reply(status=503))

        with pytest.raises(oauth.TokenUnavailableError) as failure:
            oauth.usable_token(credential.pk)

        assert failure.value.hold_reason is None

    def test_a_row_says_without_a_reload_that_its_provider_is_not_asked_again_yet(
        self, fake: FakeProvider
    ) -> None:
        row = make_token(credential_at(fake), now=NOW, retry_refresh_at=NOW + HOUR)
        ended = row.expires_at
        assert ended is not None
        while_alive = ended - timedelta(seconds=1)
        assert oauth.current_token(row, now=while_alive) is not None

        row.retry_refresh_at = ended + HOUR
        with pytest.raises(oauth.TokenUnavailableError) as failure:
            oauth.current_token(row, now=ended + timedelta(seconds=1))
        assert (failure.value.hold_reason, failure.value.retry_at) == (None, ended + HOUR)
        assert oauth.current_token(row, now=ended + 2 * HOUR) is None
        assert fake.requests == []

    def test_corrected_settings_do_not_bring_a_refused_token_back(self, fake: FakeProvider) -> None:
        credential = credential_at(fake)
        make_token(credential, state="misconfigured", refused_version=1)

        tokens.unblock_misconfigured(credential.pk)

        assert oauth.current_token(stored()) is None
        assert oauth.usable_token(credential.pk).access_token == "fresh-token"

    def test_blocked_token_is_not_refreshed_by_a_worker_but_by_a_person(
        self, fake: FakeProvider
    ) -> None:
        credential = credential_at(fake)
        make_token(credential, state="misconfigured", last_error="Correct it.")

        with pytest.raises(oauth.TokenUnavailableError, match="Correct it"):
            token_after_refusal(credential, 1)
        usable = oauth.refresh(credential)

        assert (usable.version, stored().state, stored().last_error) == (2, "valid", "")
        assert len(fake.requests) == 1

    @pytest.mark.parametrize("access_token", ["an-access-token-0001", ""])
    @pytest.mark.parametrize("state", ["needs_reauthorization", "misconfigured"])
    def test_refresh_by_a_person_that_fails_for_now_leaves_a_blocked_token_blocked(
        self, fake: FakeProvider, state: str, access_token: str
    ) -> None:
        """Otherwise held deliveries would be released and held again, with an alert each time."""
        credential = credential_at(fake)
        make_token(credential, state=state, access_token=access_token, last_error="Correct it.")
        fake.reply(Reply(status=503))

        for _ in range(2):
            with pytest.raises(oauth.TokenUnavailableError, match="is not working") as failure:
                oauth.refresh(credential)

        assert failure.value.hold_reason is not None
        assert stored().state == state
        assert stored().last_error.splitlines()[1:] == ["Correct it."]

    def test_person_does_not_wait_for_the_next_try(self, fake: FakeProvider) -> None:
        credential = credential_at(fake)
        make_token(credential, retry_refresh_at=timezone.now() + HOUR)

        assert oauth.refresh(credential).version == 2

    def test_person_reads_why_it_failed(self, fake: FakeProvider) -> None:
        credential = credential_at(fake)
        make_token(credential, refresh_token="")

        with pytest.raises(oauth.TokenUnavailableError, match="no refresh token"):
            oauth.refresh(credential)

        # The access token is still valid.
        assert stored().state == "valid"


@pytest.mark.django_db
class TestClientCredentials:
    def test_token_is_fetched_and_fetched_again(self, provider: Provider) -> None:
        credential = make_machine_credential(provider)

        first = oauth.usable_token(credential.pk)
        same = oauth.usable_token(credential.pk)
        later = oauth.usable_token(credential.pk, now=timezone.now() + HOUR)

        assert (first.version, same.version, later.version) == (1, 1, 2)
        assert first.access_token != later.access_token
        grants = [request.grant_type for request in provider.token_requests()]
        assert grants == ["client_credentials"] * 2
        assert stored().obtained_at is not None

    def test_refused_token_is_fetched_again_once(self, fake: FakeProvider) -> None:
        credential = credential_at(fake, grant_type="client_credentials")
        fake.reply(token())
        first = oauth.usable_token(credential.pk)

        again = [token_after_refusal(credential, first.version).version for _ in range(3)]

        assert again == [2] * 3
        assert len(fake.requests) == 2

    def test_answer_without_a_scope_grants_what_was_asked_for(self, fake: FakeProvider) -> None:
        credential = credential_at(fake, grant_type="client_credentials", scope="a b")
        fake.reply(token(scope="a"), token())

        oauth.refresh(credential)
        assert "Not granted" in oauth.sentence(stored().warning)
        oauth.refresh(credential)

        assert (stored().granted_scope, stored().warning) == ("a b", "")

    def test_wrong_secret_is_misconfigured(self, provider: Provider) -> None:
        credential = make_machine_credential(provider)
        credential.set_secret("client_secret", "wrong")
        credential.save()

        with pytest.raises(
            oauth.TokenUnavailableError, match="does not accept the client ID"
        ) as failure:
            oauth.usable_token(credential.pk)

        assert failure.value.hold_reason == HoldReason.MISCONFIGURED
        assert stored().state == "misconfigured"

    def test_provider_that_is_down_at_the_first_time_is_asked_again(
        self, fake: FakeProvider
    ) -> None:
        credential = credential_at(fake, grant_type="client_credentials")
        fake.reply(Reply(status=503), token())

        with pytest.raises(oauth.TokenUnavailableError) as failure:
            oauth.usable_token(credential.pk)
        assert failure.value.hold_reason is None
        assert stored().state == "none"

        later = timezone.now() + timedelta(seconds=10)
        assert oauth.usable_token(credential.pk, now=later).access_token == "fresh-token"


@pytest.mark.django_db
class TestLease:
    """The database's clock times the lease: workers' clocks may differ by minutes (O22)."""

    def test_lease_of_another_process_is_waited_for_and_then_taken_over(
        self, fake: FakeProvider
    ) -> None:
        credential = credential_at(fake)
        row = make_token(credential, now=NOW)
        started = time.monotonic()
        OAuthToken.objects.filter(pk=row.pk).update(
            refresh_lease="of-a-process-that-died",
            refresh_lease_until=Now() + timedelta(seconds=0.4),
            state="refreshing",
        )

        usable = oauth.usable_token(credential.pk, now=NOW + HOUR)

        assert usable.version == 2
        assert time.monotonic() - started > 0.35

    def test_wait_ends(self, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("webhooks.oauth.tokens.WAIT_SECONDS", 0.3)
        credential = credential_at(fake)
        row = make_token(credential, now=NOW)
        OAuthToken.objects.filter(pk=row.pk).update(
            refresh_lease="of-a-slow-process", refresh_lease_until=Now() + HOUR
        )

        with pytest.raises(oauth.TokenUnavailableError, match="being refreshed") as failure:
            oauth.usable_token(credential.pk, now=NOW + HOUR)
        alive = oauth.usable_token(credential.pk, now=NOW + timedelta(minutes=59, seconds=30))

        assert failure.value.retry_at is not None
        assert alive.version == 1
        assert fake.requests == []

    def test_wait_is_a_little_longer_than_an_exchange(self) -> None:
        from webhooks.oauth import client, tokens

        assert client.TOTAL_SECONDS < tokens.WAIT_SECONDS < tokens.lease_seconds()

    def test_failure_that_was_not_read_yet_keeps_the_lease(self, fake: FakeProvider) -> None:
        """Two workers read the row; the second must not present the token 0.14 s after a 503."""
        seen = make_token(credential_at(fake), now=NOW)
        OAuthToken.objects.update(refresh_failures=1)

        assert tokens.take_lease(seen) == ""

    def test_lease_is_not_given_before_the_wait_is_over(self, fake: FakeProvider) -> None:
        row = make_token(credential_at(fake), retry_refresh_at=timezone.now() + HOUR)

        assert tokens.take_lease(row) == ""
        assert tokens.take_lease(row, is_forced=True) != ""

    def test_lease_is_for_one_version(self, fake: FakeProvider) -> None:
        row = make_token(credential_at(fake))
        OAuthToken.objects.update(version=2)

        assert tokens.take_lease(row) == ""

    def test_lease_is_given_once(self, fake: FakeProvider) -> None:
        row = make_token(credential_at(fake))

        assert tokens.take_lease(row) != ""
        assert tokens.take_lease(row) == ""
        assert stored().state == "refreshing"

    def test_process_that_slept_through_its_lease_sends_nothing(
        self, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A used refresh token, sent late, would end the whole grant at a strict provider."""
        credential = credential_at(fake)
        make_token(credential, now=NOW)
        take, sleeps, leases = tokens.take_lease, [20.0], []

        def take_and_sleep(*args: Any, **more: Any) -> str:
            lease = take(*args, **more)
            leases.append(lease)
            if sleeps:
                monkeypatch.setattr("time.monotonic", _later(sleeps.pop()))
            return lease

        monkeypatch.setattr(tokens, "take_lease", take_and_sleep)

        assert oauth.usable_token(credential.pk, now=NOW + HOUR).version == 2
        # The first lease was returned unused.
        assert len(leases) == 2
        assert len(fake.requests) == 1


def _later(seconds: float) -> Any:
    real = time.monotonic
    return lambda: real() + seconds


@pytest.mark.django_db
class TestEndOfTheGrant:
    """An end of the grant that each refresh moves is ignored; one that stays is shown."""

    def refresh(self, credential: Credential, fake: FakeProvider, *, after: int, left: int) -> None:
        fake.reply(token(refresh_token="next", expires_in=300, refresh_expires_in=left))
        oauth.refresh(credential, now=NOW + timedelta(seconds=after))

    @pytest.mark.parametrize(
        ("lefts", "moves"),
        [
            ([1800, 1800, 1800], True),
            # Keycloak sends whole seconds.
            ([1800, 1799, 1800], True),
            ([36_000, 35_760, 35_520], False),
            # The idle timeout moved until the end of the session limited it.
            ([1800, 1800, 1560], False),
            ([10_000_000, 10_000_000, 10_000_000], True),
        ],
    )
    def test_end_is_judged_by_whether_refreshes_move_it(
        self, fake: FakeProvider, lefts: list[int], moves: bool
    ) -> None:
        credential = credential_at(fake)
        make_token(
            credential,
            now=NOW,
            expires_at=NOW + timedelta(minutes=5),
            refresh_token_expires_at=NOW + timedelta(seconds=lefts[0]),
        )

        for number, left in enumerate(lefts[1:], start=1):
            self.refresh(credential, fake, after=240 * number, left=left)

        assert stored().refresh_end_moves is moves

    def test_two_refreshes_at_once_show_nothing(self, fake: FakeProvider) -> None:
        credential = credential_at(fake)
        make_token(credential, now=NOW, refresh_token_expires_at=NOW + HOUR, refresh_end_moves=True)

        self.refresh(credential, fake, after=1, left=3599)

        assert stored().refresh_end_moves is True

    @pytest.mark.parametrize(
        ("fields", "moves"),
        [
            ({"expires_in": 300, "refresh_expires_in": 1800}, True),
            # No refresh happens before that end.
            ({"expires_in": 3600, "refresh_expires_in": 1800}, False),
            ({"refresh_expires_in": 1800}, False),
            ({"expires_in": 300}, False),
        ],
    )
    def test_end_of_a_new_grant_is_reported_once_a_refresh_has_shown_it(
        self, fake: FakeProvider, fields: dict[str, int], moves: bool
    ) -> None:
        fake.reply(token(refresh_token="r", **fields))
        authorize(credential_at(fake))

        assert stored().refresh_end_moves is moves

    @pytest.mark.parametrize(
        ("scope", "seconds", "is_said"),
        [("openid", 1800, True), ("openid offline_access", 1800, False), ("openid", 10**7, False)],
    )
    def test_short_idle_time_is_said_with_what_makes_it_longer(
        self, fake: FakeProvider, scope: str, seconds: int, is_said: bool
    ) -> None:
        credential = credential_at(fake, scope=scope)
        make_token(credential, now=NOW, refresh_token_expires_at=NOW + timedelta(seconds=seconds))

        self.refresh(credential, fake, after=240, left=seconds)

        warning = oauth.sentence(stored().warning)
        assert ("offline_access" in warning) is is_said
        assert not is_said or "30 minutes" in warning


@pytest.mark.django_db
class TestBeat:
    def test_only_what_is_due_is_refreshed(self, fake: FakeProvider) -> None:
        now = timezone.now()
        lives = {"soon": 30, "later": 90, "over": -5}
        for name, seconds in lives.items():
            credential = credential_at(fake, name=name)
            make_token(
                credential,
                now=now - HOUR,
                expires_at=now + timedelta(seconds=seconds),
                refresh_token=f"refresh-{name}",
            )

        refreshed = oauth.refresh_expiring(now)

        assert refreshed == 2
        sent = {asked.fields["refresh_token"] for asked in fake.requests}
        assert sent == {"refresh-soon", "refresh-over"}

    @pytest.mark.parametrize(
        "fields",
        [
            {"state": "needs_reauthorization"},
            {"state": "misconfigured"},
            {"retry_refresh_at": timezone.now() + HOUR},
            {"refresh_token": ""},
            {"expires_at": None},
            {"access_token": "", "refresh_token": "", "state": "none"},
        ],
    )
    def test_what_cannot_be_refreshed_now_is_left(
        self, fake: FakeProvider, fields: dict[str, Any]
    ) -> None:
        make_token(credential_at(fake), **{"expires_at": timezone.now(), **fields})

        assert oauth.refresh_expiring() == 0
        assert fake.requests == []

    def test_deleted_webhooks_and_other_types_are_left(self, fake: FakeProvider) -> None:
        for fields in ({"deleted_at": timezone.now()}, {"authorization_type": "basic"}):
            make_token(credential_at(fake, **fields), expires_at=timezone.now())

        assert oauth.refresh_expiring() == 0

    def test_failure_of_one_does_not_stop_the_others(self, fake: FakeProvider) -> None:
        now = timezone.now()
        for minutes in (3, 2, 1):
            make_token(credential_at(fake), expires_at=now - timedelta(minutes=minutes))
        fake.reply(Reply(status=400, body={"error": "invalid_grant"}), Reply(status=500), token())

        assert oauth.refresh_expiring(now) == 1
        states = OAuthToken.objects.order_by("pk").values_list("state", flat=True)
        assert list(states) == ["needs_reauthorization", "expiring", "valid"]

    def test_unexpected_failure_of_one_does_not_stop_the_others(
        self,
        fake: FakeProvider,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        now = timezone.now()
        first, _second = (
            make_token(credential_at(fake), expires_at=now - timedelta(minutes=minutes))
            for minutes in (2, 1)
        )
        fake.reply(token())
        renew = tokens.renew

        def fail_for_the_first(seen: OAuthToken, *more: Any) -> bool:
            if seen.pk == first.pk:
                raise ZeroDivisionError
            return renew(seen, *more)

        monkeypatch.setattr(tokens, "renew", fail_for_the_first)

        assert oauth.refresh_expiring(now) == 1
        (line,) = (one for one in caplog.records if one.levelname == "ERROR")
        assert line.getMessage() == f"refresh_crashed credential={first.pk}"

    def test_token_that_another_process_refreshes_is_not_waited_for(
        self, fake: FakeProvider
    ) -> None:
        row = make_token(credential_at(fake), expires_at=timezone.now())
        tokens.take_lease(row)
        started = time.monotonic()

        assert oauth.refresh_expiring() == 0
        # A caller that waits does so for twelve seconds.
        assert time.monotonic() - started < 10


def changed(credential: Credential, field: str, value: str) -> bool:
    """Change a field of the credential or the receiver's URL; return whether a token was lost."""
    before = oauth.fingerprint(credential, credential.receiver_url)
    receiver_url = value if field == "url" else credential.receiver_url
    if field != "url":
        change(credential, **{field: value})
    return oauth.drop_if_changed(before, credential, receiver_url)


@pytest.mark.django_db
class TestDrop:
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("token_url", "https://evil.example/token"),
            ("token_url", "https://provider.example/other"),
            ("client_id", "another-client"),
            ("grant_type", "client_credentials"),
            ("url", "https://evil.example/hooks"),
            ("url", "https://receiver.example:8443/hooks"),
            ("refresh_url", "https://evil.example/refresh"),
            ("revocation_url", "https://evil.example/revoke"),
        ],
    )
    def test_change_of_what_the_token_belongs_to_erases_it(self, field: str, value: str) -> None:
        credential = make_credential()
        make_token(credential, version=3, last_error="Old.", refresh_lease="taken")

        assert changed(credential, field, value) is True

        row = stored()
        assert (row.state, row.version, row.last_error) == ("none", 4, "")
        assert not row.has_access_token()
        assert not row.has_refresh_token()
        assert (row.refresh_lease, row.expires_at, row.granted_by) == ("", None, None)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("token_name", "Other"),
            ("url", "https://receiver.example/another/path?x=1"),
            ("scope", "more"),
            ("auth_url", "https://provider.example/other"),
            ("revocation_url", "https://provider.example/revoke"),
            ("refresh_url", "https://provider.example/refresh"),
            ("client_authentication", "request_body"),
            ("header_prefix", "Token"),
        ],
    )
    def test_other_changes_keep_it(self, field: str, value: str) -> None:
        credential = make_credential()
        make_token(credential)

        assert changed(credential, field, value) is False
        assert (stored().version, stored().access_token) == (1, "an-access-token-0001")

    def test_corrected_secret_lets_a_misconfigured_token_be_tried_again(
        self, fake: FakeProvider
    ) -> None:
        credential = credential_at(fake)
        make_token(credential, state="misconfigured", last_error="Wrong secret.", now=NOW)
        before = oauth.fingerprint(credential, credential.receiver_url)
        credential.set_secret("client_secret", "the-right-one")
        credential.save()

        assert oauth.drop_if_changed(before, credential, credential.receiver_url) is False
        # The version is increased so that workers look again.
        assert (stored().state, stored().version, stored().last_error) == ("valid", 2, "")
        assert oauth.usable_token(credential.pk, now=NOW + HOUR).version == 3

    def test_saving_the_form_does_not_bring_a_dead_grant_back(self) -> None:
        credential = make_credential()
        make_token(credential, state="needs_reauthorization")

        same = oauth.fingerprint(credential, credential.receiver_url)
        assert oauth.drop_if_changed(same, credential, credential.receiver_url) is False
        assert stored().state == "needs_reauthorization"

    def test_webhook_without_a_token_has_nothing_to_drop(self) -> None:
        credential = make_credential()

        assert oauth.drop_if_changed("another", credential, "") is False
        assert not OAuthToken.objects.exists()

    def test_fingerprint_reveals_no_secret(self) -> None:
        assert len(oauth.fingerprint(make_credential(), "https://receiver.example/")) == 64


@pytest.mark.django_db
class TestUnreadable:
    """With a wrong encryption key nothing is sent, lost or blocked."""

    def damage(self, *names: str) -> None:
        OAuthToken.objects.update(**{name: Sealed("gAAAAA-of-another-key") for name in names})

    def test_access_token_is_not_sent(self, fake: FakeProvider) -> None:
        credential = credential_at(fake)
        make_token(credential, now=NOW)
        self.damage("access_token")

        with pytest.raises(oauth.TokenUnavailableError, match="FIELD_ENCRYPTION_KEY") as failure:
            oauth.usable_token(credential.pk, now=NOW)

        assert failure.value.hold_reason is None
        assert failure.value.retry_at is not None

    def test_refresh_waits_and_gives_its_lease_back(self, fake: FakeProvider) -> None:
        credential = credential_at(fake)
        make_token(credential, now=NOW)
        self.damage("refresh_token")

        with pytest.raises(oauth.TokenUnavailableError, match="FIELD_ENCRYPTION_KEY"):
            oauth.usable_token(credential.pk, now=NOW + HOUR)

        assert (stored().refresh_lease, stored().state, stored().version) == ("", "valid", 1)
        assert fake.requests == []

    def test_code_is_not_exchanged(self, fake: FakeProvider) -> None:
        credential, user = credential_at(fake), make_user()
        _, sent = begin(credential, user)
        Credential.objects.update(client_secret=Sealed("gAAAAA-of-another-key"))
        query = {"code": ["c"], "state": [sent["state"]]}

        with pytest.raises(oauth.AuthorizationError, match="FIELD_ENCRYPTION_KEY") as failure:
            oauth.finish_authorization(query, user=user, session_key=SESSION)

        assert failure.value.credential == credential
        assert fake.requests == []

    def test_token_is_cleared_all_the_same(self, fake: FakeProvider) -> None:
        credential = credential_at(fake, revocation_url=f"{fake.url}/revoke")
        make_token(credential)
        self.damage("access_token", "refresh_token")

        oauth.clear_token(credential)

        assert stored().state == "none"
        assert fake.requests == []


@pytest.mark.django_db(transaction=True)
class TestTogether:
    """Real threads on a real database, each with its own connection."""

    def test_many_threads_make_one_refresh_per_version(self, fake: FakeProvider) -> None:
        credential = credential_at(fake)
        make_token(credential, now=timezone.now() - HOUR)
        fake.reply(Reply(body=token(refresh_token="r2", expires_in=3600).body, delay_seconds=0.3))

        def use(_number: int) -> str:
            try:
                return oauth.usable_token(credential.pk).access_token
            finally:
                connection.close()

        with ThreadPoolExecutor(12) as pool:
            tokens = list(pool.map(use, range(12)))

        assert tokens == ["fresh-token"] * 12
        assert len(fake.requests) == 1
        assert stored().version == 2

    def test_database_that_is_down_for_a_moment_does_not_cost_the_new_token(
        self, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        credential = credential_at(fake)
        make_token(credential, now=NOW)
        store, failures = tokens.store_refreshed, [OperationalError("gone")] * 2

        def fail_first(*args: Any, **more: Any) -> bool:
            if failures:
                raise failures.pop()
            return store(*args, **more)

        monkeypatch.setattr(tokens, "store_refreshed", fail_first)

        assert oauth.usable_token(credential.pk, now=NOW + HOUR).access_token == "fresh-token"
        assert len(fake.requests) == 1

    def test_database_that_is_down_for_a_moment_does_not_cost_the_grant(
        self, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The code is used up, so a person would have to approve again."""
        store, failures = tokens.store_granted, [OperationalError("gone")] * 2

        def fail_first(*args: Any, **more: Any) -> None:
            if failures:
                raise failures.pop()
            store(*args, **more)

        monkeypatch.setattr(tokens, "store_granted", fail_first)

        authorize(credential_at(fake))

        assert stored().access_token == "fresh-token"
        assert len(fake.requests) == 1

    def test_losers_share_the_winners_failure(self, fake: FakeProvider) -> None:
        credential = credential_at(fake)
        make_token(credential, now=timezone.now() - HOUR)
        fake.reply(Reply(status=400, body={"error": "invalid_grant"}, delay_seconds=0.2))

        def use(_number: int) -> object:
            try:
                oauth.usable_token(credential.pk)
            except oauth.TokenUnavailableError as failure:
                return failure.hold_reason
            finally:
                connection.close()
            return "a token"

        with ThreadPoolExecutor(6) as pool:
            reasons = list(pool.map(use, range(6)))

        assert reasons == [HoldReason.REAUTHORIZATION] * 6
        assert len(fake.requests) == 1

    def test_no_transaction_is_open_while_the_provider_thinks(self, fake: FakeProvider) -> None:
        credential = credential_at(fake)
        make_token(credential, now=timezone.now() - HOUR)
        written: list[float] = []

        def write_concurrently(asked: ReceivedRequest) -> Reply:
            # Another connection writes, which on SQLite would wait for the first one.
            started = time.monotonic()
            Credential.objects.filter(pk=credential.pk).update(token_name="Meanwhile")
            OAuthToken.objects.filter(pk=credential.pk).update(warning="Meanwhile")
            written.append(time.monotonic() - started)
            connection.close()
            return token()

        fake.reply(write_concurrently)

        oauth.usable_token(credential.pk)

        # On SQLite a write waits up to twenty seconds for another writer.
        assert written[0] < 15

    def test_token_granted_during_a_refresh_wins(self, fake: FakeProvider) -> None:
        """`invalid_grant` is ignored when the row has a newer token by then."""
        credential = credential_at(fake)
        make_token(credential, now=timezone.now() - HOUR)

        def grant_concurrently(asked: ReceivedRequest) -> Reply:
            row = OAuthToken.objects.get()
            row.access_token, row.refresh_token, row.version = "granted", "new-refresh", 2
            row.expires_at, row.refresh_lease = timezone.now() + HOUR, ""
            row.refreshed_at, row.state = timezone.now(), "valid"
            row.save()
            connection.close()
            return Reply(status=400, body={"error": "invalid_grant"})

        fake.reply(grant_concurrently)

        usable = oauth.usable_token(credential.pk)

        assert (usable.access_token, usable.version) == ("granted", 2)
        assert (stored().state, stored().refresh_token) == ("valid", "new-refresh")

    def test_token_dropped_during_a_refresh_stays_dropped(self, fake: FakeProvider) -> None:
        credential = credential_at(fake)
        make_token(credential, now=timezone.now() - HOUR)

        def drop_concurrently(asked: ReceivedRequest) -> Reply:
            tokens.drop(credential.pk)
            connection.close()
            return token(refresh_token="must-not-be-stored")

        fake.reply(drop_concurrently)

        with pytest.raises(oauth.TokenUnavailableError) as failure:
            oauth.usable_token(credential.pk)

        assert failure.value.hold_reason == HoldReason.NO_TOKEN
        assert not stored().has_access_token()
        assert not stored().has_refresh_token()

    @pytest.mark.parametrize("change", [{"client_id": "another"}, {"authorization_type": "basic"}])
    def test_settings_changed_during_the_exchange_store_no_token(
        self, fake: FakeProvider, change: dict[str, str]
    ) -> None:
        credential, user = credential_at(fake), make_user()
        _, sent = begin(credential, user)

        def change_concurrently(asked: ReceivedRequest) -> Reply:
            Credential.objects.filter(pk=credential.pk).update(**change)
            connection.close()
            return token()

        fake.reply(change_concurrently)
        query = {"code": ["c"], "state": [sent["state"]]}

        with pytest.raises(oauth.AuthorizationError, match="before the token came"):
            oauth.finish_authorization(query, user=user, session_key=SESSION)

        assert not OAuthToken.objects.exists()

    def test_one_answer_in_two_tabs_is_exchanged_once(self, fake: FakeProvider) -> None:
        credential, user = credential_at(fake), make_user()
        _, sent = begin(credential, user)
        query = {"code": ["c"], "state": [sent["state"]]}
        together = threading.Barrier(4)

        def finish(_number: int) -> str:
            together.wait()
            try:
                oauth.finish_authorization(query, user=user, session_key=SESSION)
            except oauth.AuthorizationError as failure:
                return failure.message
            finally:
                connection.close()
            return "stored"

        with ThreadPoolExecutor(4) as pool:
            outcomes = list(pool.map(finish, range(4)))

        assert outcomes.count("stored") == 1
        assert len(fake.requests) == 1

    def test_lost_answer_of_a_rotating_provider_needs_a_person(self, provider: Provider) -> None:
        """F30: the provider rotated the token, and its response was lost."""
        credential = make_credential(provider)
        connect(credential)
        provider.fault(status=502, after=True)
        later = timezone.now() + HOUR

        with pytest.raises(oauth.TokenUnavailableError) as lost:
            oauth.usable_token(credential.pk, now=later)
        with pytest.raises(oauth.TokenUnavailableError) as ended:
            oauth.usable_token(credential.pk, now=later + timedelta(seconds=10))

        assert lost.value.hold_reason is None
        assert ended.value.hold_reason == HoldReason.REAUTHORIZATION
        assert [one.error for one in provider.token_requests()][-1] == "invalid_grant"

    def test_grant_is_regained(self, provider: Provider) -> None:
        credential, user = make_credential(provider), make_user()
        for _ in range(2):
            connect(credential, user)
            later = timezone.now() + HOUR
            assert oauth.usable_token(credential.pk, now=later).access_token
            provider.revoke_grants()
            with pytest.raises(oauth.TokenUnavailableError) as ended:
                oauth.usable_token(credential.pk, now=later + HOUR)
            assert ended.value.hold_reason == HoldReason.REAUTHORIZATION

        kinds = OAuthExchange.objects.filter(credential=credential).values_list("kind", flat=True)
        assert sorted(kinds) == sorted(["authorization", "token", "refresh", "refresh"] * 2)
