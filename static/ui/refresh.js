// Refreshes parts of a page while the tab is visible.
//   data-refreshes="4"     sends "refresh" to the part after this many seconds; htmx loads it again.
//                          The interval grows while nothing changes, and resets when the tab is shown.
//   data-stops="#part"      a button that stops and restarts the refreshes; aria-pressed is its state
//   data-announces="text"  announced politely when a refresh changes it
// A hidden tab sends no requests, and a part in use is not refreshed: keyboard focus, open details or checked rows.
"use strict";

(() => {
  const LONGEST_SECONDS = 30;
  const GROWTH = 1.25;
  let clocks = new WeakMap();

  const isInUse = (part) => part.querySelector(":focus-visible, details[open], input:checked") !== null;

  const isStopped = (part) => document.querySelector(`[data-stops="#${part.id}"][aria-pressed="false"]`) !== null;

  const look = () => {
    if (document.hidden) return;
    const now = Date.now();
    for (const part of document.querySelectorAll("[data-refreshes]")) {
      const first = Number(part.dataset.refreshes);
      const clock = clocks.get(part) ?? { wait: first, at: now + first * 1000 };
      clocks.set(part, clock);
      if (now < clock.at || isInUse(part) || isStopped(part)) continue;
      clock.wait = Math.max(first, Math.min(clock.wait * GROWTH, LONGEST_SECONDS));
      clock.at = now + clock.wait * 1000;
      htmx.trigger(part, "refresh");
    }
  };

  const said = new Map();

  const announce = () => {
    for (const part of document.querySelectorAll("[data-announces]")) {
      const text = part.dataset.announces;
      if (said.has(part.id) && said.get(part.id) !== text) {
        document.getElementById("announcer").textContent = text;
      }
      said.set(part.id, text);
    }
  };

  for (const button of document.querySelectorAll("[data-stops]")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") === "false"));
    });
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return;
    for (const part of document.querySelectorAll("[data-refreshes]")) clocks.set(part, { wait: 0, at: 0 });
    look();
  });
  document.addEventListener("htmx:afterSettle", announce);
  announce();
  setInterval(look, 1000);
})();
