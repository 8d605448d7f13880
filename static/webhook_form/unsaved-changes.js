// Shows when the form has unsaved changes, warns before the page is left, and prevents a second submit.
//   form[data-dirty="true|false"]  whether the form is dirty when the page loads; data-is-dirty: now
//   [data-dirty-note]              shown while the form is dirty
//   [data-drops-note]              shown while saving would drop the access token
"use strict";

(() => {
  const form = document.querySelector("form[data-dirty]");
  if (!form) return;
  // What to show, to test, to insert or to fill in is no setting, nor is the CSRF token.
  const counts = ([name, value]) => value && !/^(filter-shown|preview_event|test_event_type|shows_test|parameter_variable|parameters_older|success_preset|curl|csrfmiddlewaretoken)$/.test(name);
  const snapshot = () => JSON.stringify([...new FormData(form)].filter(counts));
  const origin = (text) => (URL.canParse(text) ? new URL(text).origin : text);
  // The values a token is bound to; see webhooks.oauth.fingerprint.
  const binding = () =>
    JSON.stringify([
      origin(form.elements.url?.value ?? ""),
      form.elements.token_url.value,
      form.elements.client_id.value,
      form.elements.grant_type.value,
      // Another URL at the same provider does not drop the token.
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
    // A double click must not create a second webhook.
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
