// Disables the connections that may not be sent to the origin of the URL field.
//   option[data-origins="https://a.example https://b.example:8443"]  the origins of one connection
// The chosen option stays enabled, since a disabled one would not be posted.
"use strict";

(() => {
  const url = document.getElementById("id_url");
  const select = document.querySelector("select[data-connection]");
  if (!url || !select) return;

  const show = () => {
    const text = url.value.trim();
    const origin = URL.canParse(text) ? new URL(text).origin : "";
    for (const option of select.options) {
      const origins = option.dataset.origins?.split(" ") ?? [];
      const isElsewhere = origin && !origins.includes(origin);
      option.disabled = Boolean(option.value && isElsewhere && !option.selected);
    }
  };

  url.addEventListener("input", show);
  select.addEventListener("change", show);
  addEventListener("pageshow", show);
})();
