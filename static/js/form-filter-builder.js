// The condition builder's buttons are htmx; this keeps the rest of the form out of its requests,
// keeps what is typed while an answer is on its way, and lets the form notice changed conditions.
//   [data-filter-section]  the section, replaced by each answer
"use strict";

(() => {
  const section = () => document.querySelector("[data-filter-section]");
  const isOurs = (element) => element?.closest?.("[data-filter-section]");
  const belongs = (name) => name === "action" || name === "event_types" || name.startsWith("filter-");
  const texts = () => [...(section()?.querySelectorAll("input[id]:not([type]), textarea[id]") ?? [])];
  // What was asked with, and what was typed since, by the id of the field.
  let asked = new Map();
  let typed = new Map();

  document.addEventListener("htmx:configRequest", (event) => {
    if (!isOurs(event.target)) return;
    const parameters = event.detail.parameters;
    for (const name of Object.keys(parameters)) if (!belongs(name)) delete parameters[name];
    asked = new Map(texts().map((field) => [field.id, field.value]));
  });

  document.addEventListener("htmx:beforeSwap", (event) => {
    if (!isOurs(event.target)) return;
    const changed = texts().filter((field) => asked.has(field.id) && asked.get(field.id) !== field.value);
    typed = new Map(changed.map((field) => [field.id, field.value]));
  });

  document.addEventListener("htmx:afterSettle", (event) => {
    document.getElementById("webhook-form")?.dispatchEvent(new Event("input"));
    // Of a replaced section only: the answer to typing replaces what is said below it.
    if (event.target !== section()) return;
    for (const field of texts()) {
      if (typed.has(field.id)) field.value = typed.get(field.id);
      // Also what was typed before the new section listened.
      if (field.value !== field.defaultValue) field.dispatchEvent(new Event("input", { bubbles: true }));
    }
    typed.clear();
  });
})();
