"""The audit trail: who changed what and when. Start reading at `entries`."""

from webhooks.audit.entries import (
    SENTENCES,
    changed_fields,
    note,
    record,
    record_deliveries,
    record_many,
    sentence,
    snapshot,
    trail_of,
)
from webhooks.audit.versions import settings_of
