"""All models: constraints, choices and querysets; no I/O except the database.

Start with `webhook` and `log`, which has events, deliveries and attempts. Workers write `log` and
`oauth`, which has tokens, pending authorizations and exchanges. People edit most others.
"""

from webhooks.models.access import ApiKey, ApiScope, EncryptionCanary, MissingScopeError
from webhooks.models.alerts import (
    AlertChannel,
    AlertMessage,
    ChannelKind,
    Incident,
    IncidentKind,
)
from webhooks.models.audit import Action, AuditEntry, WebhookVersion
from webhooks.models.credential import (
    AUTHORIZATION_FIELDS,
    BY_PERSON,
    CREDENTIAL_SECRETS,
    AuthorizationType,
    ClientAuthentication,
    Credential,
    GrantType,
    TokenPlacement,
    may_be_sent_to,
)
from webhooks.models.edited import EditedRow
from webhooks.models.log import (
    FINAL_STATUSES,
    LONG_AGO,
    OPEN_STATUSES,
    Attempt,
    Delivery,
    DeliveryQuerySet,
    Drain,
    Event,
    HoldReason,
    HourlyCount,
    IdempotencyKey,
    Outcome,
    SavedView,
    Status,
    Trigger,
)
from webhooks.models.oauth import (
    BLOCKED_STATES,
    TOKEN_SECRETS,
    AuthorizationRequest,
    ExchangeKind,
    OAuthExchange,
    OAuthToken,
    TokenState,
    token_of,
)
from webhooks.models.origins import host_entry, host_origin, is_plain_http, origin_of
from webhooks.models.resends import Resend, ResendScope, ResendStatus
from webhooks.models.webhook import (
    WEBHOOK_SECRETS,
    BodyFormat,
    Header,
    Method,
    PauseReason,
    ResponseRule,
    Webhook,
    WebhookState,
    headers_as_json,
)
