r"""No page shows a character that cannot be seen: it is written as an escape such as `\u202e`.

Names, payloads and answers come from other people. Where they are the point of a page, the filter
`visible` marks the escapes; this is for everything else, Django's own admin too. Left alone is what
somebody edits: the values of form controls. Only HTML is looked at.
"""

import re
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

# In UTF-8: C0 controls but tab, line feed and return, delete, C1 controls, the marks and overrides
# that turn text around (U+061C, U+200E, U+200F, U+202A to U+202E, U+2066 to U+2069), and the
# separators that end a line in some programs only (U+2028, U+2029).
_UNSEEN = re.compile(
    rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\xc2[\x80-\x9f]|\xd8\x9c|\xe2\x80[\x8e\x8f\xa8-\xae]"
    rb"|\xe2\x81[\xa6-\xa9]"
)
# Values arrive here escaped, so a quote or a bracket in them ends nothing.
_KEPT = re.compile(rb"(<textarea[^>]*>.*?</textarea>|\svalue=\"[^\"]*\")", re.DOTALL)


class ShowUnseen:
    """Rewrites pages that hold such a character, and costs the others one search."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self._get_response(request)
        if not isinstance(response, HttpResponse):
            return response
        if "text/html" in response.get("Content-Type", "") and _UNSEEN.search(response.content):
            response.content = shown(response.content)
            if "Content-Length" in response:
                response["Content-Length"] = str(len(response.content))
        return response


def shown(html: bytes) -> bytes:
    """Return a page with escapes for what cannot be seen outside of form controls."""
    parts = _KEPT.split(html)
    # Every second part is what was split at.
    parts[::2] = [_UNSEEN.sub(_escaped, part) for part in parts[::2]]
    return b"".join(parts)


def _escaped(found: re.Match[bytes]) -> bytes:
    code = ord(found[0].decode())
    return f"\\x{code:02x}".encode() if code <= 0xFF else f"\\u{code:04x}".encode()
