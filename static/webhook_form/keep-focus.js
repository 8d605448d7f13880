// Returns the focus to a button that was disabled during an htmx request, or to the message that replaced it.
"use strict";

(() => {
  const pressed = new WeakMap();

  document.addEventListener("htmx:beforeRequest", ({ detail }) => {
    const button = document.activeElement;
    if (button?.matches("button")) pressed.set(detail.xhr, button);
  });
  document.addEventListener("htmx:afterRequest", ({ detail }) => {
    const button = pressed.get(detail.xhr);
    if (!button || document.activeElement !== document.body) return;
    const answer = document.getElementById(detail.target.id);
    const place = button.isConnected ? button : answer?.querySelector("[role=alert], [role=status]") ?? answer;
    if (place && place !== button) place.tabIndex = -1;
    place?.focus({ preventScroll: true });
  });
})();
