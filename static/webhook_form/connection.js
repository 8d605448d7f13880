// Lets only those connections be chosen that may be sent to the host in the URL field.
//   option[data-hosts="a.example b.example"]  the hosts of one connection
// The chosen one stays: a disabled choice would not be posted.
"use strict";

(() => {
  const url = document.getElementById("id_url");
  const select = document.querySelector("select[data-connection]");
  if (!url || !select) return;

  const show = () => {
    const text = url.value.trim();
    const host = URL.canParse(text) ? new URL(text).hostname.replace(/^\[|\]$/g, "") : "";
    for (const option of select.options) {
      const hosts = option.dataset.hosts?.split(" ") ?? [];
      option.disabled = Boolean(option.value && host && !option.selected && !hosts.includes(host));
    }
  };

  url.addEventListener("input", show);
  select.addEventListener("change", show);
  addEventListener("pageshow", show);
})();
