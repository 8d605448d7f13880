"""Fill the form's fields from a pasted cURL command; other typed values stay.

Values with the name of a variable become that variable; others become fixed values. Secrets go
into secret fields.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

from django.http import QueryDict
from django.utils.translation import gettext as _

from webhooks import catalogue, payloads
from webhooks.curl import CurlError, parser
from webhooks.curl.parser import CurlRequest
from webhooks.models import Method
from webhooks.network import merge_headers
from webhooks.ui.webhook_form import headers, mapping
from webhooks.ui.webhook_form.headers import NO_VARIABLES, RESERVED
from webhooks.ui.webhook_form.mapping import KEY, ROWS, TEMPLATE, from_post, sends_unchanged

ACTION = "paste_curl"
_SECRET_NAME = re.compile(r"key|token|secret|auth|passw|signature|session|credential", re.I)
_TYPES = {"application/json": "json", "application/x-www-form-urlencoded": "form"}
_JSON_TYPE = re.compile(r"application/json|text/json|[^/]+/[^/]+\+json")
_TIMEOUTS = range(1, 61)
# A long command can cause thousands.
_MAX_NOTES = 20
_CURLY_KEY = re.compile(rf"[\ufeff\s]*[\[{{][\[{{\s]*[{payloads.CURLY_QUOTES}]")
_HALF_CHARACTERS = re.compile("[\ud800-\udfff]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pasted:
    """The result of a paste: `problem` if nothing was filled in, else fields filled and notes."""

    problem: str = ""
    filled: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def fill_in(data: QueryDict) -> Pasted:
    """Fill the posted fields from the command; the command is removed if that succeeded."""
    try:
        request = parser.read(data.get("curl", ""))
    except CurlError as error:
        return Pasted(problem=str(error))
    filled = _Filling(data, request).fill()
    data["curl"] = ""
    notes = list(dict.fromkeys(request.notes))
    if (more := len(notes) - _MAX_NOTES) > 0:
        notes[_MAX_NOTES:] = [_("%d more") % more]
    return Pasted(filled=tuple(filled), notes=tuple(notes))


class _Filling:
    def __init__(self, data: QueryDict, request: CurlRequest) -> None:
        self._data = data
        self._request = request
        self._filled: list[str] = []

    def fill(self) -> list[str]:
        request = self._request
        if request.method in Method.values:
            self._set("method", request.method, _("method"))
        else:
            request.notes.append(_("The method %s cannot be chosen.") % request.method[:20])
        self._set("url", request.url, _("URL"))
        self._fill_content()
        self._fill_authorization()
        self._fill_headers()
        seconds = request.timeout_seconds
        if seconds is not None and round(seconds) in _TIMEOUTS:
            self._set("timeout_seconds", str(round(seconds)), _("timeout"))
        elif seconds is not None:
            request.notes.append(_("The timeout is from 1 to 60 seconds, so it was left out."))
        return self._filled

    def _set(self, name: str, value: str, label: str) -> None:
        self._data[name] = value
        self._filled.append(label)

    # ---- Content ---------------------------------------------------------------------------

    def _fill_content(self) -> None:
        request = self._request
        if not request.body:
            self._note_no_body()
            return
        if request.is_in_query:
            self._data["body_format"] = "query" if request.method != "GET" else "json"
            self._fill_pairs(_("parameters of the query"))
            return
        if request.method == "GET":
            request.notes.append(_("GET has no body here, so the body was left out."))
            return
        declared = self._content_type()
        if request.is_json or _JSON_TYPE.fullmatch(declared) or _is_meant_as_json(request.body):
            self._fill_json(request.body)
        elif declared in ("", "application/x-www-form-urlencoded"):
            self._data["body_format"] = "form"
            self._fill_pairs(_("parameters of the form"))
        else:
            request.notes.append(
                _("The body is %s, and a webhook sends JSON or a form, so it was left out.")
                % declared[:60]
            )

    def _note_no_body(self) -> None:
        request, data = self._request, self._data
        if request.method == "GET":
            return
        if kind := _TYPES.get(self._content_type(), ""):
            data["body_format"] = kind
        is_mapped = {
            ROWS: any(not row.is_blank for row in from_post(data)),
            TEMPLATE: bool(data.get("body_template", "").strip()),
        }
        if not is_mapped.get(data.get("parameters_mode", "")):
            request.notes.append(
                _("The command has no body. A webhook without parameters sends every variable.")
            )

    def _content_type(self) -> str:
        return self._request.header("content-type").partition(";")[0].strip().lower()

    def _fill_json(self, body: str) -> None:
        self._data["body_format"] = "json"
        value = _json(body)
        rows = list(_flat(value, "")) if isinstance(value, dict) else []
        is_exact = value is not None and _is_exact(body, value) and all(map(_is_kept, rows))
        are_rows = is_exact and rows and len(rows) <= payloads.MAX_ROWS
        if are_rows and all(_is_path(name) for name, _v in rows) and not _needs_template(value):
            self._fill_rows(rows, _("parameters"))
            return
        text = json.dumps(value, ensure_ascii=False, indent=2) if is_exact else body
        self._set("body_template", text, _("JSON body"))
        self._data["parameters_mode"] = TEMPLATE

    def _fill_pairs(self, label: str) -> None:
        pairs = _pairs(self._request.body)
        if len(pairs) > mapping.MAX_POSTED_ROWS:
            self._request.notes.append(
                _(
                    "There are %(count)d parameters, but at most %(limit)d can be set, so they "
                    "were left out."
                )
                % {"count": len(pairs), "limit": payloads.MAX_ROWS}
            )
            return
        rows = []
        # Names without “=”: the webhook would send them with one, which is not the same.
        bare = {
            unquote_plus(part, errors="surrogateescape")
            for part in self._request.body.split("&")
            if "=" not in part
        }
        for name, value in pairs:
            shown, text = (_HALF_CHARACTERS.sub("\ufffd", one) for one in (name, value))
            is_bare = not value and name in bare
            if (shown, text) != (name, value) or is_bare or not sends_unchanged(name, value):
                self._request.notes.append(
                    _("“%s” cannot be sent exactly as it was pasted. Look at its name and value.")
                    % shown[:60]
                )
            rows.append((shown, text))
        self._fill_rows(rows, label)

    def _fill_rows(self, rows: list[tuple[str, Any]], label: str) -> None:
        """Fill one row per name: the existing row of that name, else a new one at the end."""
        data = self._data
        variables = _variables(data.getlist("event_types"))
        keys = [str(row.key) for row in from_post(data) if not row.is_blank]
        named = {data.get(f"{KEY}-{key}-name", "").strip(): key for key in reversed(keys)}
        last = max(map(int, keys), default=-1)
        mapped, with_placeholder = [], 0
        for name, value in rows:
            key = named.get(name)
            if key is None:
                key = str(last := last + 1)
                keys.append(key)
            else:
                # The next value of the same name goes into another row.
                del named[name]
            data[f"{KEY}-{key}-name"] = name
            if placeholder := _known_placeholder(value):
                with_placeholder += 1
                kind, text = "variable", variables.get(placeholder, placeholder)
            elif variable := variables.get(name):
                mapped.append(name)
                kind, text = "variable", variable
            else:
                kind, text = payloads.value_as_typed(None, value)
                self._note_braces(name, text)
            data[f"{KEY}-{key}-source"], data[f"{KEY}-{key}-content"] = kind, text
        data.setlist(KEY, keys)
        data["parameters_mode"] = ROWS
        self._filled.append(f"{label} ({len(rows)})")
        if mapped:
            self._request.notes.append(
                _("Mapped to variables of the same name: %s.") % ", ".join(mapped[:20])
            )
        if len(mapped) + with_placeholder < len(rows):
            self._request.notes.append(
                _("Replace values that should come from the event with variables.")
            )

    def _note_braces(self, name: str, text: str) -> None:
        if payloads.has_placeholder(text):
            self._request.notes.append(
                _("“%s” is sent with its braces: only a whole value can be a variable here.")
                % name[:60]
            )

    def _note_no_variables(self, name: str, text: str) -> None:
        if payloads.has_placeholder(text):
            self._request.notes.append(NO_VARIABLES % name[:60])

    # ---- Credentials and headers -----------------------------------------------------------

    def _fill_authorization(self) -> None:
        request = self._request
        if request.login is not None:
            # The login is the webhook's own: a chosen connection would be sent instead of it.
            self._data["connection"], self._data["authorization_type"] = "", "basic"
            self._set("basic_login", request.login, _("login"))
            is_filled_in = any(one in request.password for one in request.expansions)
            if request.password and not is_filled_in:
                self._data.pop("basic_password-clear", None)
                self._set("basic_password", request.password, _("password"))
        scheme, credentials = request.authorization
        if scheme.lower() == "bearer":
            request.notes.append(
                _(
                    "The Bearer token was left out: tokens expire. Choose OAuth 2.0 to fetch and "
                    "renew one, or ask the receiver for a key in a header of its own."
                )
            )
        elif scheme:
            # A single word may be a key; one that an option implies is the name of a scheme.
            is_name = credentials or scheme == request.implied.get("Authorization")
            request.notes.append(
                _("The authorization “%s” cannot be sent, so it was left out.")
                % (scheme[:30] if is_name else "…")
            )

    def _fill_headers(self) -> None:
        set_automatically: list[str] = []
        kept = []
        for name, value in self._request.headers:
            lower = name.lower()
            if lower == "cookie":
                self._request.notes.append(str(parser.COOKIES))
            elif lower in RESERVED:
                if lower not in ("authorization", "content-type"):
                    set_automatically.append(name)
            elif not value:
                self._request.notes.append(_("The header %s has no value.") % name[:60])
            elif (lower, value) != ("accept", "*/*"):
                kept.append((name, value))
        merged = merge_headers(kept)
        if len(merged) > headers.MAX_POSTED_ROWS:
            self._request.notes.append(
                _(
                    "There are %(count)d headers, but at most %(limit)d can be set, so they were "
                    "left out."
                )
                % {"count": len(merged), "limit": headers.MAX_ROWS}
            )
            merged = []
        for name, value in merged:
            self._put_header(name, value)
            self._note_no_variables(name, value)
        declared = self._content_type()
        if declared and _TYPES.get(declared) != self._data.get("body_format"):
            set_automatically.append(f"Content-Type ({declared[:60]})")
        if set_automatically:
            self._request.notes.append(
                _("Set automatically, so left out: %s.") % ", ".join(set_automatically)[:300]
            )
        if merged:
            self._filled.append(_("headers (%d)") % len(merged))

    def _put_header(self, name: str, value: str) -> None:
        """Fill the row of the same name, or a blank row, or a new one."""
        data = self._data
        typed = data.get("headers-TOTAL_FORMS", "")
        # At most as many rows as the form accepts, whatever was posted.
        is_number = typed.isdecimal() and len(typed) < 6
        total = min(int(typed), headers.MAX_POSTED_ROWS) if is_number else 0
        names = [data.get(f"headers-{row}-name", "").strip().lower() for row in range(total)]
        if name.lower() in names:
            row = names.index(name.lower())
        else:
            row = names.index("") if "" in names else total
        data["headers-TOTAL_FORMS"] = str(max(total, row + 1))
        data[f"headers-{row}-name"], data[f"headers-{row}-value"] = name, value
        data.pop(f"headers-{row}-is_removed", None)
        if _SECRET_NAME.search(name):
            data[f"headers-{row}-is_secret"] = "on"


def _pairs(body: str) -> list[tuple[str, str]]:
    """Return the pairs of a form; a byte that is not UTF-8 becomes a lone surrogate."""
    return list(parse_qsl(body, keep_blank_values=True, errors="surrogateescape"))


def _json(text: str) -> Any:
    """Return the value of a JSON object or list; None for everything else."""
    try:
        value = payloads.load_json(text.encode(errors="replace"))
    except payloads.DocumentError:
        return None
    return value if isinstance(value, dict | list) else None


def _is_exact(text: str, value: Any) -> bool:
    """Return whether JSON can be written again without loss: exact numbers, no lone surrogates."""
    floats: list[str] = []
    json.loads(text.removeprefix("\ufeff"), parse_float=floats.append)
    try:
        json.dumps(value, ensure_ascii=False).encode()
        return all(Decimal(one) == Decimal(repr(float(one))) for one in floats)
    except (UnicodeEncodeError, ArithmeticError):
        return False


def _is_meant_as_json(body: str) -> bool:
    """Return whether a body is JSON, apart from curly quotes or unquoted placeholders."""
    is_like_json = payloads.has_placeholder(body) or _CURLY_KEY.match(body)
    begins = body.lstrip("\ufeff \t\r\n")[:1]
    return _json(body) is not None or (begins in ("{", "[") and bool(is_like_json))


def _known_placeholder(value: Any) -> str:
    """Return the variable of a value that is a single placeholder, else ""."""
    variable = payloads.only_variable(value) if isinstance(value, str) else ""
    is_known = variable and not payloads.variable_problem(variable, payloads.known_names())
    return variable if is_known else ""


def _needs_template(document: dict[str, Any]) -> bool:
    """Return whether placeholders are where rows cannot have any: within a text, or nested."""
    return any(
        payloads.has_placeholder(text) and not (text is value and _known_placeholder(text))
        for value in document.values()
        for text in _texts(value)
    )


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _flat(value: Any, path: str) -> Iterable[tuple[str, Any]]:
    """Yield the path and the value of each leaf; an empty object or list is a leaf."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(
                item, f"{path}.{payloads.escape(key)}" if path else payloads.escape(key)
            )
    elif isinstance(value, list) and value and path:
        for index, item in enumerate(value):
            yield from _flat(item, f"{path}[{index}]")
    else:
        yield path, value


def _is_kept(leaf: tuple[str, Any]) -> bool:
    name, value = leaf
    return sends_unchanged(name, value if isinstance(value, str) else "")


def _is_path(name: str) -> bool:
    try:
        payloads.parse_path(name)
    except ValueError:
        return False
    return name.isprintable() and bool(name.strip())


def _variables(patterns: list[str]) -> dict[str, str]:
    """Return the variables of the chosen events by their current and older names."""
    found: dict[str, str] = {}
    for key in catalogue.types_for(patterns):
        for variable in catalogue.variables_for(key):
            found[variable.name] = variable.name
            if variable.older_name:
                found.setdefault(variable.older_name, variable.name)
    return found
