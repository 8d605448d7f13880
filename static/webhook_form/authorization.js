// Shows the parts of the form that belong to the current choices, and hides the others.
//   [data-authorization-for="basic"]  a part that belongs to one authorization type
//   [data-authorization-own]          shown unless a connection is chosen
//   [data-shown-when="name=value,other"]  hidden unless the radio of this name has one of these values;
//                                         any one of several rules is enough; a part with an error stays
//   [data-sent-as]                    shows how the client's credentials are sent
//   select[data-connection]           a chosen connection counts as the type "connection"
//   [data-authorization-change]       submit buttons that do the same without JavaScript
"use strict";

(() => {
  const checked = (name) => document.querySelector(`[name="${name}"]:checked`)?.value;

  const show = () => {
    const own = checked("authorization_type") ?? "none";
    const chosen = document.querySelector("[data-connection]")?.value ? "connection" : own;
    for (const part of document.querySelectorAll("[data-authorization-own]")) {
      part.hidden = chosen === "connection";
    }
    for (const part of document.querySelectorAll("[data-authorization-for]")) {
      part.hidden = part.dataset.authorizationFor !== chosen;
    }
    for (const part of document.querySelectorAll("[data-shown-when]")) {
      const rules = part.dataset.shownWhen.split(" ").map((rule) => rule.split("="));
      if (!rules.some(([name]) => checked(name)) || part.querySelector("[aria-invalid=true]")) continue;
      part.hidden = !rules.some(([name, values]) => values.split(",").includes(checked(name)));
    }
    const sentAs = document.querySelector("[name=client_authentication]:checked");
    if (sentAs) document.querySelector("[data-sent-as]").textContent = sentAs.closest("label").textContent;
  };

  for (const button of document.querySelectorAll("[data-authorization-change]")) {
    button.hidden = true;
  }
  document.addEventListener("change", (event) => {
    if (event.target.matches("[type=radio], [data-connection]")) show();
  });
  // A browser may restore the choice of an earlier visit.
  addEventListener("pageshow", show);
  // After htmx replaced a panel.
  document.addEventListener("htmx:afterSettle", show);
})();
