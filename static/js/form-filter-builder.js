// The condition builder's buttons are htmx; this keeps the rest of the form out of its requests
// and lets the form notice that its conditions changed.
//   [data-filter-section]  the section, replaced by each answer
"use strict";

(() => {
  const isOurs = (element) => element?.closest?.("[data-filter-section]");
  const belongs = (name) => name === "action" || name === "event_types" || name.startsWith("filter-");

  document.addEventListener("htmx:configRequest", (event) => {
    if (!isOurs(event.target)) return;
    const parameters = event.detail.parameters;
    for (const name of Object.keys(parameters)) if (!belongs(name)) delete parameters[name];
  });

  document.addEventListener("htmx:afterSettle", () => {
    document.getElementById("webhook-form")?.dispatchEvent(new Event("input"));
  });
})();
