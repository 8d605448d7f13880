"""The delivery log for operators: the log of Integrations, under Django admin's addresses."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils.translation import gettext as _

from webhooks.admin.readonly import ReadOnlyAdmin, key_of
from webhooks.ui.deliveries import views

_STEPS = {"redeliver": views.redeliver, "send-now": views.send_now, "cancel": views.cancel}


class DeliveryAdmin(ReadOnlyAdmin):
    def get_urls(self) -> list[URLPattern]:
        steps = [
            path(
                f"<str:delivery_id>/{step}/",
                self.admin_site.admin_view(view),
                name=f"webhooks_delivery_{step.replace('-', '_')}",
            )
            for step, view in _STEPS.items()
        ]
        return steps + super().get_urls()

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        template = "admin/webhooks/delivery/change_list.html"
        return self.show(request, template, _("Delivery log"), views.log_context(request))

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        context = views.detail_context(request, views.get_delivery(key_of(object_id)))
        template = "admin/webhooks/delivery/change_form.html"
        return self.show(request, template, _("Delivery"), context)
