"""The event document, and the request built from it: frozen bytes in, URL and body out.

`build_document` freezes a payload, `compile_request` builds a webhook's request: with all
variables, mapped rows, or a JSON body with placeholders. The attempt number is not part of the
document.
"""

from webhooks.payloads.document import (
    build_document,
    fingerprint,
    instant_of_text,
    is_encodable,
    read_document,
    read_moment,
    shown,
)
from webhooks.payloads.errors import (
    BodyTooLargeError,
    DocumentError,
    MappingError,
    TooManyItemsError,
    Violation,
    megabytes,
)
from webhooks.payloads.json_reader import CURLY_QUOTES, load_json
from webhooks.payloads.paths import escape, parse_path
from webhooks.payloads.placeholders import (
    has_placeholder,
    only_variable,
    template_problems,
    template_variables,
)
from webhooks.payloads.renderer import Rendered, compile_request, rows_as_placeholders, sent_as
from webhooks.payloads.rows import MAX_ROWS, MAX_VALUE_LENGTH, rows_problems, value_as_typed
from webhooks.payloads.variables import (
    WHOLE_EVENT,
    as_text,
    finder,
    known_names,
    path_problem,
    variable_problem,
)
