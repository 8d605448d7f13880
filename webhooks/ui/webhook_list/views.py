"""The list of webhooks: searched as you type, filtered, in any order, page by page."""

from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_required, permission_required
from django.core.paginator import Paginator
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from webhooks.delivery import backlog
from webhooks.delivery_log import charts
from webhooks.models import Delivery, Webhook
from webhooks.ui.columns import SECRETS_OF_WEBHOOK
from webhooks.ui.status import standing_of, token_of
from webhooks.ui.webhook_list import bulk, first_steps
from webhooks.ui.webhook_list import query as list_query

WEBHOOKS_PER_PAGE = 50


@require_safe
@login_required
@permission_required("webhooks.view_webhook", raise_exception=True)
def list_webhooks(request: HttpRequest) -> HttpResponse:
    """Show a page of what the address asks for. htmx takes its parts out of the same answer."""
    found = list_query.order(list_query.find(request.GET), list_query.wanted_sort(request.GET))
    page = Paginator(_with_what_rows_show(found), WEBHOOKS_PER_PAGE).get_page(
        request.GET.get("page")
    )
    rows = _rows(list(page))
    has_any = bool(rows) or Webhook.objects.present().exists()
    context = {
        "rows": rows,
        "page": page,
        "has_any": has_any,
        "may_choose": any(map(request.user.has_perm, bulk.PERMISSIONS.values())),
        **list_query.choices(request.GET),
        "first_steps": _first_steps(request, rows, page.paginator.count),
        "sandbox_url": settings.WEBHOOKS_SANDBOX_URL,
        "backlog": backlog.report() if has_any else None,
    }
    return render(request, "webhooks/webhook_list/list.html", context)


def _first_steps(
    request: HttpRequest, rows: list[dict[str, Any]], count: int
) -> list[first_steps.Step]:
    """Return what is left to do on a site with one webhook or none."""
    if list_query.is_filtered(request.GET) or count > 1:
        return []
    if not rows:
        return first_steps.of(None)
    return first_steps.of(rows[0]["webhook"], rows[0]["last"])


def _with_what_rows_show(found: QuerySet[Webhook]) -> QuerySet[Webhook]:
    return (
        found.select_related("state", "credential__token")
        .defer(*SECRETS_OF_WEBHOOK)
        .annotate(last_delivery_id=Subquery(newest_delivery(OuterRef("pk"))))
    )


def _rows(webhooks: list[Webhook]) -> list[dict[str, Any]]:
    last_ids = {webhook.pk: getattr(webhook, "last_delivery_id", None) for webhook in webhooks}
    last = Delivery.objects.in_bulk([pk for pk in last_ids.values() if pk])
    days = charts.last_day(last_ids)
    return [
        {
            "webhook": webhook,
            "token": token_of(webhook.credential),
            "standing": standing_of(webhook),
            "last": last.get(last_ids[webhook.pk] or ""),
            "day": days[webhook.pk],
        }
        for webhook in webhooks
    ]


def newest_delivery(webhook: int | OuterRef) -> QuerySet[Delivery, Any]:
    """Return a query for the id of a webhook's newest delivery: one step into an index."""
    return Delivery.objects.filter(webhook=webhook).order_by("-id").values("pk")[:1]
