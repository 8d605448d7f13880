"""Webhooks as JSON, without secrets: written for another site or a backup, read back with a plan.

`portable`: what a webhook looks like in a file. `reading`: what a file may hold. `plans`: what an
import would create, change and leave, and doing it at once. Knows no request.
"""

from webhooks.ui.transfer.parser import MAX_BYTES, MAX_WEBHOOKS, Unreadable, read
from webhooks.ui.transfer.plans import Kind, Plan, Planned, carry_out, make_plan
from webhooks.ui.transfer.portable import document, missing_secrets

__all__ = [
    "MAX_BYTES",
    "MAX_WEBHOOKS",
    "Kind",
    "Plan",
    "Planned",
    "Unreadable",
    "carry_out",
    "document",
    "make_plan",
    "missing_secrets",
    "read",
]
