// Stores the browser's time zone in a cookie, so that the next page shows times in it.
// The site accepts only zones it knows, and a chosen zone takes precedence: webhooks/ui/account/time_zone.py.
"use strict";

(() => {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone ?? "";
  const written = `browser_time_zone=${zone}`;
  if (!/^[\w+/-]+$/.test(zone) || document.cookie.split("; ").includes(written)) return;
  const secure = location.protocol === "https:" ? "; secure" : "";
  document.cookie = `${written}; path=/; max-age=31536000; samesite=lax${secure}`;
})();
