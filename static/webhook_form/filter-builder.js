// The condition builder's buttons use htmx; this keeps the rest of the form out of its requests
// and notifies the form when its conditions change.
//   [data-filter-section]  the section, replaced by each response
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
    // Only for a replaced section: the response to typing replaces just the result below it.
    if (event.target !== section()) return;
    // Input that was typed before the new section had its listeners.
    for (const field of section().querySelectorAll("input[id]:not([type]), textarea[id]")) {
      if (field.value !== field.defaultValue) field.dispatchEvent(new Event("input", { bubbles: true }));
    }
  });
})();
