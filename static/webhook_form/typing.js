// Keeps what is typed while a response that replaces the field is under way.
//   [data-keeps-typed]  around the fields
"use strict";

(() => {
  const around = (element) => element?.closest?.("[data-keeps-typed]");
  const texts = (root) => [...root.querySelectorAll("input[id]:not([type]), textarea[id]")];
  // By request: the values sent, and what was typed since, by the id of the field.
  const asked = new WeakMap();
  const typed = new WeakMap();
  // By request: the fields whose value was restored.
  const restored = new WeakMap();

  document.addEventListener("htmx:beforeRequest", (event) => {
    const root = around(event.target);
    if (root) asked.set(event.detail.xhr, new Map(texts(root).map((field) => [field.id, field.value])));
  });

  document.addEventListener("htmx:beforeSwap", (event) => {
    const root = around(event.target);
    const before = asked.get(event.detail.xhr);
    if (!root || !before) return;
    const changed = texts(root).filter((field) => before.has(field.id) && before.get(field.id) !== field.value);
    typed.set(event.detail.xhr, new Map(changed.map((field) => [field.id, { field, value: field.value }])));
  });

  document.addEventListener("htmx:afterSwap", (event) => {
    const root = around(event.target);
    const since = typed.get(event.detail.xhr);
    if (!root || !since) return;
    for (const field of texts(root)) {
      const last = since.get(field.id);
      // A field that was not replaced already has the latest input.
      if (!last || last.field === field || last.value === field.value) continue;
      since.delete(field.id);
      field.value = last.value;
      restored.set(event.detail.xhr, [...(restored.get(event.detail.xhr) ?? []), field]);
    }
  });

  // New fields have their listeners only after htmx has settled.
  document.addEventListener("htmx:afterSettle", (event) => {
    const fields = restored.get(event.detail.xhr) ?? [];
    restored.delete(event.detail.xhr);
    for (const field of fields) field.dispatchEvent(new Event("input", { bubbles: true }));
  });
})();
