"""The audit trail: who changed what and when. Start reading at `entries`."""

from webhooks.audit.entries import (
    changed_fields,
    record,
    record_deliveries,
    record_many,
    snapshot,
)

__all__ = [
    "changed_fields",
    "record",
    "record_deliveries",
    "record_many",
    "snapshot",
]
