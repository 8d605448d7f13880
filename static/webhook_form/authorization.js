// Shows the fields of the chosen authorization type at once, and hides those of the others.
//   [data-authorization-for="basic"]  a part of the page that belongs to one type
//   [data-authorization-own]          what is there unless a connection is chosen
//   select[data-connection]           a chosen connection stands for the type "connection"
//   [data-authorization-change]       submit buttons that do the same without JavaScript
"use strict";

(() => {
  const show = () => {
    const own = document.querySelector("[name=authorization_type]:checked")?.value ?? "none";
    const chosen = document.querySelector("[data-connection]")?.value ? "connection" : own;
    for (const part of document.querySelectorAll("[data-authorization-own]")) {
      part.hidden = chosen === "connection";
    }
    for (const part of document.querySelectorAll("[data-authorization-for]")) {
      part.hidden = part.dataset.authorizationFor !== chosen;
    }
  };

  for (const button of document.querySelectorAll("[data-authorization-change]")) {
    button.hidden = true;
  }
  document.addEventListener("change", (event) => {
    if (event.target.matches("[name=authorization_type], [data-connection]")) show();
  });
  // A browser may bring back the choice of an earlier visit.
  addEventListener("pageshow", show);
  // A panel that htmx drew anew.
  document.addEventListener("htmx:afterSettle", show);
})();
