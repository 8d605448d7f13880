"""Django admin: the delivery log, events, exchanges and API keys, in the product's own look.

Owns what may be seen and done there. The log is read only; what can be done with a delivery goes
through `webhooks.events`. Secrets, key hashes and tokens have no place on any of these pages.
"""

from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.utils.translation import gettext_lazy as _

from webhooks.admin.access import ApiKeyAdmin
from webhooks.admin.accounts import GroupAdmin, UserAdmin
from webhooks.admin.logs import (
    AuditEntryAdmin,
    DeliveryAdmin,
    EventAdmin,
    OAuthExchangeAdmin,
    WebhookAdmin,
)
from webhooks.models import ApiKey, AuditEntry, Delivery, Event, OAuthExchange, Webhook

admin.site.site_header = _("Integrations")
admin.site.site_title = _("Integrations")
admin.site.index_title = _("Administration")
admin.site.site_url = "/integrations/webhooks/"
admin.site.enable_nav_sidebar = False
admin.site.login_template = "registration/login.html"

admin.site.register(ApiKey, ApiKeyAdmin)
admin.site.register(AuditEntry, AuditEntryAdmin)
admin.site.register(Delivery, DeliveryAdmin)
admin.site.register(Event, EventAdmin)
admin.site.register(OAuthExchange, OAuthExchangeAdmin)
admin.site.register(Webhook, WebhookAdmin)

# Django registers its own when its app is loaded, which is before ours.
admin.site.unregister([Group, User])
admin.site.register(Group, GroupAdmin)
admin.site.register(User, UserAdmin)
