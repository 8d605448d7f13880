"""All outgoing requests: address policy, URL parser, DNS lookups, guarded libcurl.

Deliveries use `configure_curl`, `SocketOpener` and `HostResolver`; OAuth uses `GuardedSession`.
Start reading at `guard`.
"""

from webhooks.network.adapter import GuardedSession, GuardedSessionMixin, before_waiting
from webhooks.network.addresses import METADATA, Policy, parse_allowed_network
from webhooks.network.body import declared_charset, decode, is_packed, unpack
from webhooks.network.failures import (
    SENTENCES,
    DeadlineExceededError,
    Failure,
    NameNotResolvedError,
    NetworkError,
    ResponseTooLargeError,
    TLSError,
    TransferError,
    UnsafeURLError,
    classify,
)
from webhooks.network.guard import (
    CUT_HEAD,
    NO_PORTS,
    PROXY_NOT_FOUND,
    PROXY_SILENT,
    ResponseBuffer,
    SocketOpener,
    affordable_connections,
    configure_curl,
    end_connection,
    set_certificate,
    set_url,
)
from webhooks.network.headers import HEADER_NAME, header_line, merge_headers
from webhooks.network.resolver import (
    LOOKUP_SECONDS,
    HostResolver,
    Resolution,
    check_url,
    checked_addresses,
    looked_up,
)
from webhooks.network.urls import Target, parse_url, with_query
