// Says when the form differs from what is saved, warns before it is left, and saves once.
//   form[data-dirty="true|false"]  whether it already differs when the page comes; data-is-dirty now
//   [data-dirty-note]              shown while it differs
//   [data-drops-note]              shown while saving would drop the access token
"use strict";

(() => {
  const form = document.querySelector("form[data-dirty]");
  if (!form) return;
  // How tried events are listed and which one is previewed are no settings; a token is none either.
  const counts = ([name, value]) => value && !/^(filter-shown|preview_event|test_event_type|shows_test|parameters_older|curl|csrfmiddlewaretoken)$/.test(name);
  const snapshot = () => JSON.stringify([...new FormData(form)].filter(counts));
  const origin = (text) => (URL.canParse(text) ? new URL(text).origin : text);
  // The values a token is bound to; see webhooks.oauth.fingerprint.
  const binding = () =>
    JSON.stringify([
      origin(form.elements.url?.value ?? ""),
      form.elements.token_url.value,
      form.elements.client_id.value,
      form.elements.grant_type.value,
      // Another address at the same provider changes nothing.
      [...new Set(
        ["token_url", "refresh_url", "revocation_url"].map((name) => form.elements[name].value)
          .filter(Boolean).map(origin),
      )].sort(),
    ]);
  const saved = { form: snapshot(), binding: binding() };
  let isDirty = form.dataset.dirty === "true";
  let isLeaving = false;

  const show = () => {
    isDirty = form.dataset.dirty === "true" || snapshot() !== saved.form;
    form.dataset.isDirty = isDirty;
    for (const note of document.querySelectorAll("[data-dirty-note]")) note.hidden = !isDirty;
    const drops = document.querySelector("[data-drops-note]");
    if (drops) drops.hidden = binding() === saved.binding;
  };

  show();
  form.addEventListener("input", show);
  form.addEventListener("click", () => setTimeout(show));
  form.addEventListener("submit", (event) => {
    // The second click of a double click does not create a second webhook.
    if (isLeaving) event.preventDefault();
    isLeaving = true;
    setTimeout(() => (isLeaving = false), 3000);
  });
  addEventListener("pageshow", () => {
    isLeaving = false;
    show();
  });
  addEventListener("beforeunload", (event) => {
    if (isDirty && !isLeaving) event.preventDefault();
  });
})();
