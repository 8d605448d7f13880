"""Every row of the product. Constraints, choices and querysets; no I/O beyond the database.

`webhook`: what people edit. `oauth`: tokens, pending authorizations and their exchanges, which
workers write. `log`: events, deliveries and attempts. `statistics`: their roll-up for charts.
`replays`: past deliveries sent again. `access`: API keys and the key canary. `audit`: who did what.
"""

from webhooks.models.access import ApiKey, EncryptionCanary
from webhooks.models.audit import Action, AuditEntry
from webhooks.models.authorization import (
    AuthorizationFields,
    AuthorizationType,
    ClientAuthentication,
    GrantType,
)
from webhooks.models.incidents import Incident, IncidentKind
from webhooks.models.log import Attempt, Delivery, Event, HoldReason, Outcome, Status, Trigger
from webhooks.models.oauth import (
    AuthorizationRequest,
    ExchangeKind,
    OAuthExchange,
    OAuthToken,
    TokenState,
)
from webhooks.models.replays import Replay, ReplayScope, ReplayStatus
from webhooks.models.statistics import HourlyCount
from webhooks.models.webhook import (
    WEBHOOK_SECRETS,
    BodyFormat,
    Connection,
    DateFormat,
    Method,
    PauseReason,
    Webhook,
    WebhookState,
)
