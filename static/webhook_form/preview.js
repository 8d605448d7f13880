// Updates the preview when the form changes; the next request waits for the last response
// (hx-sync). Secrets stay in the browser: the preview shows masks anyway.
// The sample event of Send test follows the one that the preview shows.
//   [data-preview]  the panel   [data-errors="names"]  the errors of the fields of one parameter
"use strict";

(() => {
  const form = document.getElementById("webhook-form");
  const panel = document.querySelector("[data-preview]");
  if (!form || !panel) return;
  // A secret that is revealed while it is typed, or that is multiline, is not a password input.
  const isSecret = (name) => {
    const control = form.elements[name];
    return name === "curl" || control?.type === "password" || Boolean(control?.closest?.("[data-secret]"));
  };
  const snapshot = () => JSON.stringify([...new FormData(form)].filter(([name]) => !isSecret(name)));
  let asked = snapshot();
  let timer;
  const sample = document.getElementById("test-event");
  const picker = () => document.getElementById("preview-event");
  const shows = () => picker()?.dataset.shows;
  // The event in the pending request; and one picked since then, which the response must not reset.
  let sent;
  let picked;
  let shown = shows();

  const refresh = () => {
    if (snapshot() !== asked) htmx.trigger(panel, "refresh");
  };
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(refresh, 300);
  };
  const mark = () => {
    for (const said of document.querySelectorAll("[data-errors]")) {
      const wrong = said.dataset.errors.split(" ");
      for (const control of said.parentElement.querySelectorAll("input, select, textarea")) {
        if (wrong.includes(control.name)) control.setAttribute("aria-invalid", "true");
        else control.removeAttribute("aria-invalid");
      }
    }
    const body = document.getElementById("id_body_template");
    body?.setAttribute("aria-invalid", String(!!document.querySelector("#body-template-errors li")));
  };
  const follow = () => {
    if (shows() === shown) return;
    shown = shows();
    if (sample?.querySelector(`option[value="${CSS.escape(shown)}"]`)) sample.value = shown;
  };

  panel.addEventListener("htmx:beforeSwap", () => {
    picked = picker() && picker().value !== sent ? picker().value : undefined;
  });
  panel.addEventListener("htmx:configRequest", (event) => {
    sent = picker()?.value;
    // Taken here and not in refresh(): the request waits for the last response, which may change the event.
    asked = snapshot();
    const parameters = event.detail.parameters;
    for (const name of Object.keys(parameters)) if (isSecret(name)) delete parameters[name];
  });
  document.addEventListener("htmx:beforeSwap", (event) => {
    const answer = document.createElement("template");
    answer.innerHTML = event.detail.serverResponse;
    const lost = [...answer.content.querySelectorAll("[hx-swap-oob][id]")].filter(
      (part) => !document.getElementById(part.id),
    );
    if (!lost.length) return;
    // A parameter that was removed in the meantime has no element for its errors.
    for (const part of lost) part.remove();
    event.detail.serverResponse = answer.innerHTML;
  });
  // Retry after a network error.
  panel.addEventListener("htmx:sendError", () => {
    asked = undefined;
    clearTimeout(timer);
    timer = setTimeout(refresh, 2000);
  });
  for (const type of ["input", "change", "click"]) document.addEventListener(type, later);
  // After htmx replaced a part of the form, or the preview itself.
  document.addEventListener("htmx:afterSettle", () => {
    if (picked && picker()?.querySelector(`option[value="${CSS.escape(picked)}"]`)) {
      picker().value = picked;
    }
    picked = undefined;
    mark();
    follow();
    later();
  });
  addEventListener("pageshow", later);
})();
