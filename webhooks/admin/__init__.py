"""Django admin: the delivery log, events, exchanges and API keys, in the product's own look.

Owns what can be viewed and done there. The log is read-only; actions on a delivery go through
`webhooks.events`. No page shows secrets, key hashes or tokens.
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

# Django's app is loaded before this one and has registered its own admins.
admin.site.unregister([Group, User])
admin.site.register(Group, GroupAdmin)
admin.site.register(User, UserAdmin)
