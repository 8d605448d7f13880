// Asks for the preview again when something in the form changed; the next question waits for the
// last answer (hx-sync). Secrets stay in the browser: the preview shows masks anyway.
// Send test starts with the sample that the preview shows, also after another one is shown.
//   [data-preview]  the panel   [data-errors="names"]  what is wrong with the fields of one parameter
"use strict";

(() => {
  const form = document.getElementById("webhook-form");
  const panel = document.querySelector("[data-preview]");
  if (!form || !panel) return;
  // A secret that is shown while it is typed, or that has lines, is no password input.
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
  // The event that the request on its way asks for; the one picked since, which its answer keeps.
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
    // Not when it was asked for: it waits for the last answer, which may draw the event again.
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
    // A parameter that was removed meanwhile has no place for what is wrong with it.
    for (const part of lost) part.remove();
    event.detail.serverResponse = answer.innerHTML;
  });
  // An answer that was lost on its way is asked for again.
  panel.addEventListener("htmx:sendError", () => {
    asked = undefined;
    clearTimeout(timer);
    timer = setTimeout(refresh, 2000);
  });
  for (const type of ["input", "change", "click"]) document.addEventListener(type, later);
  // A part of the form that htmx drew again, or the answer itself.
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
