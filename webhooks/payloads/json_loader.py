"""JSON from outside, read strictly; what is wrong with it is said to people, with its position."""

import json
from typing import Any

from django.utils.translation import gettext as _

from webhooks.payloads.document import InvalidPayload, shown
from webhooks.payloads.json_text import parse
from webhooks.payloads.problems import InvalidMapping

# The search for the mistake is slower than the parser, and nobody typed a longer text.
_MAX_EXPLAINED = 65_536


def load_json(data: bytes) -> Any:
    """Parse JSON strictly; raise InvalidPayload for repeated keys, NaN and everything else."""
    try:
        text = data.decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=_unique_pairs, parse_constant=_refuse_constant)
    except InvalidPayload:
        raise
    except UnicodeDecodeError as error:
        raise InvalidPayload(_("The text is not UTF-8."), code="not_json") from error
    except json.JSONDecodeError as error:
        raise InvalidPayload(_explain(text, error), code="not_json") from error
    except RecursionError as error:
        raise InvalidPayload(_("The JSON is nested too deeply."), code="not_json") from error
    except ValueError as error:
        raise InvalidPayload(_("A number has too many digits."), code="not_json") from error


def _explain(text: str, error: json.JSONDecodeError) -> str:
    """Say what to change, as the JSON body's editor does: the parser speaks to programmers."""
    if len(text) <= _MAX_EXPLAINED:
        try:
            parse(text, has_places=False)
        except InvalidMapping as found:
            return _("The text is not JSON. %(problem)s") % {"problem": found.problems[0].sentence}
    place = {"line": error.lineno, "column": error.colno}
    return _("The text is not JSON: look at line %(line)d, column %(column)d.") % place


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _value in pairs]
        repeated = next(key for key in made if keys.count(key) > 1)
        message = _("The key “%s” occurs twice in one object.") % shown(repeated)
        raise InvalidPayload(message, code="duplicate_key")
    return made


def _refuse_constant(name: str) -> None:
    raise InvalidPayload(_("%s is not JSON.") % name, code="not_json")
