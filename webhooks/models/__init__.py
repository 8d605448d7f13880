"""Every row of the product. Constraints, choices and querysets; no I/O beyond the database.

`webhook`: what people edit. `oauth`: tokens, pending authorizations and their exchanges, which
workers write. `log`: events, deliveries and attempts. `statistics`: their roll-up for charts.
`replays`: past deliveries sent again. `access`: API keys and the key canary. `audit`: who did what.
"""

from webhooks.models.access import ApiKey, EncryptionCanary
from webhooks.models.audit import Action, AuditEntry
from webhooks.models.authorization import AuthorizationFields, ClientAuthentication, GrantType
from webhooks.models.incidents import Incident, IncidentKind
from webhooks.models.log import Attempt, Delivery, Event, HoldReason, Outcome, Status, Trigger
from webhooks.models.oauth import AuthorizationRequest, ExchangeKind, OAuthExchange, OAuthToken
from webhooks.models.oauth import TokenState as TokenState
from webhooks.models.replays import Replay, ReplayScope, ReplayStatus
from webhooks.models.statistics import HourlyCount
from webhooks.models.webhook import (
    WEBHOOK_SECRETS,
    AuthorizationType,
    BodyFormat,
    Connection,
    DateFormat,
    Method,
    PauseReason,
    Webhook,
    WebhookState,
)

__all__ = [
    "WEBHOOK_SECRETS",
    "Action",
    "ApiKey",
    "Attempt",
    "AuditEntry",
    "AuthorizationFields",
    "AuthorizationRequest",
    "AuthorizationType",
    "BodyFormat",
    "ClientAuthentication",
    "Connection",
    "DateFormat",
    "Delivery",
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
    "TokenState",
    "Trigger",
    "Webhook",
    "WebhookState",
]
