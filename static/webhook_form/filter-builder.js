// The condition builder's buttons are htmx; this keeps the rest of the form out of its requests
// and lets the form notice that its conditions changed.
//   [data-filter-section]  the section, replaced by each answer
"use strict";

(() => {
  const section = () => document.querySelector("[data-filter-section]");
  const isOurs = (element) => element?.closest?.("[data-filter-section]");
  const belongs = (name) => name === "action" || name === "event_types" || name.startsWith("filter-");

  document.addEventListener("htmx:configRequest", (event) => {
    if (!isOurs(event.target)) return;
    const parameters = event.detail.parameters;
    for (const name of Object.keys(parameters)) if (!belongs(name)) delete parameters[name];
  });

  let wasOpen = false;
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (event.detail.target === section()) wasOpen = section().open;
  });

  document.addEventListener("htmx:afterSettle", (event) => {
    if (event.target === section() && wasOpen) section().open = true;
    document.getElementById("webhook-form")?.dispatchEvent(new Event("input"));
    // Of a replaced section only: the answer to typing replaces what is said below it.
    if (event.target !== section()) return;
    // What was typed before the new section listened.
    for (const field of section().querySelectorAll("input[id]:not([type]), textarea[id]")) {
      if (field.value !== field.defaultValue) field.dispatchEvent(new Event("input", { bubbles: true }));
    }
  });
})();
