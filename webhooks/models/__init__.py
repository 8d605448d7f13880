"""Every row of the product. Constraints, choices and querysets; no I/O beyond the database.

`webhook` and `credential`: what people edit. `oauth`: tokens, pending authorizations and their
exchanges, which workers write. `log`: events, deliveries and attempts. `statistics`: their roll-up
for charts. `replays`: past deliveries sent again. `access`: API keys and the key canary. `audit`:
who did what.
"""

from webhooks.models.access import ApiKey, EncryptionCanary
from webhooks.models.audit import Action, AuditEntry
from webhooks.models.credential import (
    AUTHORIZATION_FIELDS,
    CREDENTIAL_SECRETS,
    AuthorizationType,
    ClientAuthentication,
    Credential,
    GrantType,
    TokenPlacement,
    may_be_sent_to,
)
from webhooks.models.edited import EditedRow
from webhooks.models.incidents import Incident, IncidentKind
from webhooks.models.log import Attempt, Delivery, Event, HoldReason, Outcome, Status, Trigger
from webhooks.models.oauth import AuthorizationRequest, ExchangeKind, OAuthExchange, OAuthToken
from webhooks.models.oauth import TokenState as TokenState
from webhooks.models.origins import host_entry, host_origin, is_plain_http, origin_of
from webhooks.models.replays import Replay, ReplayScope, ReplayStatus
from webhooks.models.statistics import HourlyCount
from webhooks.models.webhook import (
    WEBHOOK_SECRETS,
    BodyFormat,
    DateFormat,
    Method,
    PauseReason,
    Webhook,
    WebhookState,
)

__all__ = [
    "AUTHORIZATION_FIELDS",
    "CREDENTIAL_SECRETS",
    "WEBHOOK_SECRETS",
    "Action",
    "ApiKey",
    "Attempt",
    "AuditEntry",
    "AuthorizationRequest",
    "AuthorizationType",
    "BodyFormat",
    "ClientAuthentication",
    "Credential",
    "DateFormat",
    "Delivery",
    "EditedRow",
    "EncryptionCanary",
    "Event",
    "ExchangeKind",
    "GrantType",
    "HoldReason",
    "HourlyCount",
    "Incident",
    "IncidentKind",
    "Method",
    "OAuthExchange",
    "OAuthToken",
    "Outcome",
    "PauseReason",
    "Replay",
    "ReplayScope",
    "ReplayStatus",
    "Status",
    "TokenPlacement",
    "TokenState",
    "Trigger",
    "Webhook",
    "WebhookState",
    "host_entry",
    "host_origin",
    "is_plain_http",
    "may_be_sent_to",
    "origin_of",
]
