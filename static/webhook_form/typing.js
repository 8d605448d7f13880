// Keeps what is typed while an answer is on its way that replaces the field.
//   [data-keeps-typed]  around the fields
"use strict";

(() => {
  const around = (element) => element?.closest?.("[data-keeps-typed]");
  const texts = (root) => [...root.querySelectorAll("input[id]:not([type]), textarea[id]")];
  // What was asked with, and what was typed since, by the id of the field.
  let asked = new Map();
  let typed = new Map();

  document.addEventListener("htmx:configRequest", (event) => {
    const root = around(event.target);
    if (root) asked = new Map(texts(root).map((field) => [field.id, field.value]));
  });

  document.addEventListener("htmx:beforeSwap", (event) => {
    const root = around(event.target);
    if (!root) return;
    const changed = texts(root).filter((field) => asked.has(field.id) && asked.get(field.id) !== field.value);
    typed = new Map(changed.map((field) => [field.id, field.value]));
  });

  document.addEventListener("htmx:afterSettle", (event) => {
    const root = around(event.target);
    if (!root) return;
    for (const field of texts(root)) {
      if (!typed.has(field.id) || field.value === typed.get(field.id)) continue;
      field.value = typed.get(field.id);
      field.dispatchEvent(new Event("input", { bubbles: true }));
    }
    typed.clear();
  });
})();
