"""A day of a site: it is set up, works, fails and is inspected, with canaries for secrets.

Every step is one that people or workers take; the browsers record the responses.
"""

import json
import re
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import requests

from tests.leaks.browser import LeakBrowser
from tests.leaks.pages import routes
from tests.leaks.sinks import Secrets, Sink
from tests.leaks.site import ENCRYPTION_KEY, PASSWORD, SERVER_PASSWORD, SIGNING_KEY, LeakSite
from tests.network.test_sockets import write_certificate
from tests.polling import eventually
from tests.sandbox import ODD_CLIENT, Provider, answer_consent
from tests.ui.webhook_form.test_forms import header_fields, posted
from webhooks import oauth

PAGES = "/integrations/webhooks/"
# Typed canaries, with every character that one of the spellings changes.
BASIC_PASSWORD = "pässwört/with+b&d=chars?<1>"
SECRET_HEADER = "k3y/of+a=header&that?is%secret<2>"
MISTYPED = "mistyped/pass+word&of=a?person"
PATIENCE_SECONDS = 90.0
# The kind of canary that each column with a secret holds.
KINDS = {
    "basic_password": "password",
    "client_secret": "client secret",
    "replaced_secret": "client secret",
    "client_key": "private key",
    "client_certificate": "private key",
    "access_token": "access token",
    "refresh_token": "refresh token",
    "code_verifier": "verifier",
    "signing_secret": "signing secret",
    "previous_signing_secrets": "signing secret",
    "secret": "alert channel",
}
# Documents, whose secrets are known from being typed, and values that every site has.
NO_CANARIES = {"headers_json", "token_headers", "settings", "canary", "placeholder_values"}


def _certificate() -> str:
    """Return a certificate with its key."""
    with tempfile.TemporaryDirectory() as folder:
        write_certificate(Path(folder), "client", host="client.example.com", days=1)
        return (Path(folder) / "client.pem").read_text()


class Story:
    def __init__(self, site: LeakSite, provider: Provider, echo_url: str) -> None:
        self.site, self.provider, self.echo_url = site, provider, echo_url
        self.sinks: list[Sink] = []
        self.secrets = Secrets()
        self.person = LeakBrowser(site.url, self.sinks)
        self.debug = LeakBrowser(site.debug_url, self.sinks, name="DEBUG ")
        # Both browsers share one session.
        self.debug.session.cookies = self.person.session.cookies
        self.api_key = ""
        # URLs that could not be inspected.
        self.broken: list[str] = []
        self.webhooks: dict[str, int] = {}

    # Known secrets

    def note_stored(self) -> dict[str, Any]:
        """Add every stored secret to the known ones; return everything that was read."""
        read = self.site.read()
        for column, values in read["secrets"].items():
            field = column.rpartition(".")[2]
            if field not in NO_CANARIES:
                # A key is sent and stored with and without its prefix.
                if field == "previous_signing_secrets":
                    values = " ".join(values).split()
                plain = [value.removeprefix("whsec_") for value in values]
                self.secrets.add(KINDS[field], *plain)
        return read

    def begin(self) -> None:
        environment = {"DJANGO_SUPERUSER_PASSWORD": PASSWORD}
        arguments = ("--noinput", "--username=admin", "--email=admin@example.com")
        self.site.manage("createsuperuser", *arguments, **environment)
        self.secrets.add("password", PASSWORD, BASIC_PASSWORD, MISTYPED)
        self.secrets.add("secret header", SECRET_HEADER)
        self.secrets.add("encryption key", ENCRYPTION_KEY)
        self.secrets.add("signing key of the site", SIGNING_KEY)
        self.secrets.add("server password", SERVER_PASSWORD)
        for browser in (self.person, self.debug):
            browser.get("/login/")
            wrong = {"username": "admin", "password": MISTYPED}
            assert browser.post("/login/", wrong).status_code == 200
        self.secrets.add("session key", self.person.session_key)
        self.person.log_in("admin", PASSWORD)
        self.secrets.add("session key", self.person.session_key)

    def issue_api_key(self) -> None:
        self.person.get("/admin/webhooks/apikey/add/")
        # By design: the only response that shows the key.
        asked = {"name": "PBX", "scopes": ["events:write"]}
        page = self.person.post("/admin/webhooks/apikey/add/", asked, shown="API key")
        self.api_key = re.findall(r"whapi_[\w-]{20,}", page.text)[0]
        self.secrets.add("API key", self.api_key)

    # Webhooks

    def create(self, name: str, *, path: str, **fields: Any) -> int:
        """Submit the form with mistakes first, then create the webhook; return its id."""
        header = header_fields({"name": "X-Api-Key", "value": SECRET_HEADER, "is_secret": "on"})
        data = posted(
            **{
                "name": name,
                "url": f"{self.echo_url}{path}",
                "event_types": ["call.*", "form.*"],
                "alert_recipients": "owner@example.com",
                **header,
                **fields,
            }
        )
        for wrong in ({"url": ""}, {"action": "change_type"}, {"action": "add_header"}):
            page = self.person.post(f"{PAGES}new/", {**data, **wrong})
            assert page.status_code == 200
        answer = self.person.post(f"{PAGES}new/", data)
        assert answer.is_redirect, f"{answer.status_code}: {_problems(answer.text)}"
        self.note_stored()
        # By design: the page after a webhook was created shows its new signing secret, once.
        page = self.person.follow(answer, shown="signing secret")
        self.webhooks[name] = int(re.findall(r"webhooks/(\d+)/", page.url)[0])
        assert "whsec_" in page.text
        assert "whsec_" not in self.person.get(page.url).text
        return self.webhooks[name]

    def set_up(self) -> None:
        basic = {
            "authorization_type": "basic",
            "basic_login": "demo-login",
            "basic_password": BASIC_PASSWORD,
        }
        self.create("Basic", path="/basic/200", **basic)
        self.create("Failing", path="/failing/500", **basic)
        self.create("Query", path="/query/200", body_format="query", method="GET", **basic)
        self.create("Nobody", path="", **{**basic, "url": "http://127.0.0.1:9/hook"})
        self.create("OAuth", path="/oauth/200", **self.oauth_fields())
        self.create("Refused", path="/refused/401", **self.oauth_fields())
        channel = {"name": "Ops", "secret": f"{self.echo_url}/channel/200/T0KEN-of-the+channel"}
        added = self.person.post(f"{PAGES}alerts/add/slack/", channel)
        assert added.is_redirect, _problems(added.text)
        in_query = {
            "token_placement": "query",
            "token_query_parameter": "access_token",
            "client_key": oauth.make_key(),
            "client_certificate": _certificate(),
            "token_headers": f"X-Api-Key: {SECRET_HEADER}",
        }
        self.create("In the query", path="/placed/200", **self.oauth_fields(**in_query))

    def oauth_fields(self, **overrides: Any) -> dict[str, Any]:
        return {
            "authorization_type": "oauth2",
            "token_name": "Sandbox",
            "auth_url": self.provider.auth_url,
            "token_url": self.provider.token_url,
            "client_id": ODD_CLIENT.client_id,
            "client_secret": ODD_CLIENT.client_secret,
            "scope": "events:write offline_access",
            "client_authentication": "basic_header",
            **overrides,
        }

    # Tokens

    def credential(self, name: str) -> str:
        """Return the URL of a webhook's own credential, from the link in its form."""
        page = self.person.get(f"{PAGES}{self.webhooks[name]}/edit/")
        found = re.search(r"credentials/\d+/", page.text)
        assert found
        return f"{PAGES}{found[0]}"

    def authorize(self, name: str) -> str:
        """Press Get new access token and consent; return the callback URL with its code."""
        # By design: the browser carries the state to the provider.
        answer = self.person.post(f"{self.credential(name)}authorize/", shown="state")
        assert answer.status_code == 303, f"{answer.status_code}: {_problems(answer.text)}"
        address = answer.headers["Location"]
        assert address.startswith(self.provider.auth_url), address
        self.secrets.add("state", *parse_qs(urlsplit(address).query)["state"])
        # Pending authorizations have secrets, too.
        self.note_stored()
        back = answer_consent(address)
        self.secrets.add("code", *parse_qs(urlsplit(back).query)["code"])
        return back

    def get_tokens(self) -> None:
        for name in ("OAuth", "Refused", "In the query"):
            back = self.authorize(name)
            page = self.person.follow(self.person.get(back))
            assert page.status_code == 200
            self.note_stored()
        assert self.secrets.values["access token"], "no token was granted"
        # A repeated callback, one in another session, and one that also has an error.
        self.person.follow(self.person.get(back))
        LeakBrowser(self.site.url, self.sinks, name="stranger ").get(back)
        LeakBrowser(self.site.debug_url, self.sinks, name="DEBUG stranger ").get(back)
        self.debug.follow(
            self.debug.get(f"{back}&error=access_denied&error_description={quote(back)}")
        )

    def fail_to_get_tokens(self) -> None:
        """Let the provider respond with an error that repeats the code and the callback URL."""
        back = self.authorize("OAuth")
        code = parse_qs(urlsplit(back).query)["code"][0]
        said = f'{{"error": "invalid_grant", "error_description": "{code} of {back}"}}'
        self.provider.fault(status=400, body=said, content_type="application/json")
        self.person.follow(self.person.get(back))
        self.provider.clear_fault()

    def tend_tokens(self) -> None:
        pk = self.webhooks["OAuth"]
        panel = f"{self.credential('OAuth')}token/"
        htmx = {"HX-Request": "true"}
        self.person.follow(self.person.get(self.authorize("OAuth")))
        self.note_stored()
        for address in ("check/", "authentication/", "refresh/"):
            self.person.post(panel + address)
            self.person.post(panel + address, **htmx)
            self.note_stored()
        sent = self.note_stored()["tokens"][str(pk)]
        said = f"<html>Token {sent} of {ODD_CLIENT.client_id}, {ODD_CLIENT.client_secret}: no."
        self.provider.fault(status=500, body=said)
        self.person.follow(self.person.post(panel + "refresh/"))
        self.provider.clear_fault()
        self.provider.revoke_grants()
        self.person.follow(self.person.post(panel + "refresh/"))
        self.person.follow(self.person.post(panel + "clear/"))
        self.person.follow(self.person.get(self.authorize("OAuth")))
        self.note_stored()

    # Deliveries

    def publish(self, event_type: str = "call.incoming.after", **payload: Any) -> None:
        for key in (self.api_key, self.api_key[:-1], ""):
            answer = requests.post(
                f"{self.site.url}/api/v1/events",
                json={"type": event_type, "payload": {"call_id": "call-1", **payload}},
                headers={"Authorization": f"Bearer {key}"},
                timeout=30,
            )
            self.sinks.append(Sink("page", "POST /api/v1/events", f"{answer.headers}{answer.text}"))
            assert answer.status_code == (202 if key == self.api_key else 401), answer.text

    def deliver(self) -> None:
        for number in range(3):
            self.publish(number=number)
        for pk in self.webhooks.values():
            page = self.person.follow(self.person.post(f"{PAGES}{pk}/tests/"))
            assert page.status_code == 200
        wanted = 4 * len(self.webhooks) - 4
        eventually(
            lambda: self._attempts() >= wanted,
            saw=self._attempts,
            seconds=PATIENCE_SECONDS,
            every=0.5,
        )
        self.note_stored()

    def _attempts(self) -> int:
        return int(self.site.read()["attempts"])

    # Changes

    def change(self) -> None:
        pk = self.webhooks["Basic"]
        answer = self.person.post(f"{PAGES}{pk}/signing-secret/rotate/")
        self.note_stored()
        # By design: the page after a rotation shows the new signing secret, once.
        self.person.follow(answer, shown="signing secret")
        self.person.post(
            f"{PAGES}{pk}/signing-secret/rotate/", shown="signing secret", **{"HX-Request": "true"}
        )
        self.note_stored()
        self.person.follow(self.person.post(f"{PAGES}{self.webhooks['Failing']}/duplicate/"))
        connected = self.person.post(f"{PAGES}{self.webhooks['Query']}/save-as-connection/")
        self.person.follow(connected)
        self.person.post(f"{PAGES}{pk}/alerts/test/", {"alert_recipients": "owner@example.com"})
        again = {"scope": "all", "since": "day", "rate": "10"}
        page = self.person.follow(self.person.post(f"{PAGES}{pk}/resends/new/", again))
        assert "/resends/" in page.url
        for action in ("pause", "resume"):
            self.person.follow(self.person.post(f"{PAGES}{pk}/{action}/"))
        self.person.post(f"{PAGES}oauth/endpoints/", self.oauth_fields(issuer=self.provider.issuer))
        self.person.follow(self.person.post(f"{PAGES}bulk/", {"action": "pause", "is_all": "1"}))

    def try_out(self) -> None:
        """Use the form's previews and the cURL import, with secrets typed into them."""
        typed = posted(
            name="Typed",
            url=f"{self.echo_url}/typed/200",
            authorization_type="basic",
            basic_login="demo-login",
            basic_password=BASIC_PASSWORD,
            **header_fields({"name": "X-Api-Key", "value": SECRET_HEADER, "is_secret": "on"}),
        )
        for name in ("preview", "filter", "parameters"):
            assert self.person.post(f"{PAGES}{name}/", typed, **{"HX-Request": "true"}).ok, name
        command = (
            f"curl {self.echo_url}/pasted/200 -u 'demo-login:{BASIC_PASSWORD}' "
            f"-H 'X-Api-Key: {SECRET_HEADER}' -d 'a=1'"
        )
        page = self.person.post(f"{PAGES}new/", {"action": "paste_curl", "curl": command})
        assert "/pasted/200" in page.text
        # By design: a command that cannot be read is shown again for correction.
        broken = {"action": "paste_curl", "curl": f"{command} 'unclosed"}
        self.person.post(f"{PAGES}new/", broken, shown="password, secret header")

    def export(self) -> None:
        chosen = {"is_all": "1", "next": PAGES}
        exported = self.person.post(f"{PAGES}export/", chosen)
        self.sinks.append(Sink("export", "JSON", exported.text))
        assert "X-Api-Key" in exported.text
        self.person.post(f"{PAGES}import/", {"text": exported.text})
        password = f'"basic_password": {json.dumps(MISTYPED)}, "url":'
        with_secrets = exported.text.replace('"url":', password)
        page = self.person.post(f"{PAGES}import/", {"text": with_secrets})
        assert "secrets are not imported" in page.text
        listed = self.person.get(f"{PAGES}deliveries/export.csv?payload=1")
        assert "dlv_" in listed.text
        self.sinks.append(Sink("export", "CSV", listed.text))
        self.sinks.append(Sink("export", "dumpdata", self.site.manage("dumpdata")))

    def command(self) -> None:
        """Run the commands that operators run, and record their output."""
        for arguments in (
            ("check", "--deploy"),
            ("rotate_keys", "--verbosity=3"),
            ("check_url", f"{self.echo_url}/basic/200"),
            ("publish", "form.submitted", "--payload", "-"),
        ):
            printed = self.site.manage(*arguments, given='{"name": "A"}')
            self.sinks.append(Sink("log", f"printed by {arguments[0]}", printed))

    # Errors

    def err(self) -> None:
        """See every kind of error page with secrets in the request, with DEBUG off and on."""
        code, state = (next(iter(self.secrets.values[kind])) for kind in ("code", "state"))
        query = f"code={quote(code)}&state={quote(state)}&text={quote(self.api_key)}"
        typed = {"password": BASIC_PASSWORD, "client_secret": ODD_CLIENT.client_secret}
        bearer = {"Authorization": f"Bearer {self.api_key}", "Cookie2": SECRET_HEADER}
        for browser in (self.person, self.debug):
            for accept in ("text/html", "text/plain"):
                headers = {**bearer, "Accept": accept}
                browser.get(f"/broken/?{query}", **headers)
                assert browser.post(f"/broken/?{query}", typed, **headers).status_code == 500
            browser.get(f"{PAGES}999999/?{query}")
            browser.get(f"/nothing/?{query}")
            wrong_host = LeakBrowser(browser.url, self.sinks, name=f"{browser.name}wrong host ")
            wrong_host.get(f"{PAGES}?{query}", Host="evil.example.com", **bearer)
            browser.post(f"{PAGES}bulk/", {"action": "none", **typed})
            stranger = LeakBrowser(browser.url, self.sinks, name=f"{browser.name}stranger ")
            stranger.post(f"{PAGES}new/", typed)
            stranger.get(f"{PAGES}?q=x")

    def leak(self, control: str) -> None:
        """Let the site leak the control secret, to prove that each place is searched."""
        address = f"/leak/?control={quote(control, safe='')}"
        assert self.debug.get(address).ok
        assert self.person.get(f"{address}&status=500").status_code == 500
        self.person.get(PAGES)

    # Inspection

    def visit_all_urls(self) -> None:
        """Open every URL of the site, as a page and as an htmx request."""
        rows = self.site.read()["rows"]
        for route in routes():
            addresses = dict.fromkeys(route.addresses(rows))
            if not addresses and not route.text.startswith("admin/auth/group/"):
                self.broken.append(route.name)
            for address in addresses:
                if route.name == "webhooks:oauth_callback":
                    continue
                answer = self.person.get(address)
                # `/readyz` responds with 503 while the machine is too busy for a sweep in time.
                if answer.status_code >= 500 and answer.status_code != 503:
                    self.broken.append(address)
                if not address.startswith("/admin/"):
                    self.person.get(address, **{"HX-Request": "true"})
        for address in ("/admin/webhooks/", "/admin/auth/"):
            self.person.get(address)

    def mails(self) -> None:
        for path in sorted(self.site.mails.iterdir()):
            self.sinks.append(Sink("mail", "to people and operators", path.read_text()))


def _problems(page: str) -> str:
    """Return the error messages of a page, or the whole page if it has none."""
    found = re.findall(r'class="[^"]*\b(?:error|alert|problem)[^"]*".*?</', page, re.DOTALL)
    return "\n".join(found) or page
