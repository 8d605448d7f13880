// Shows the fields of the chosen authorization type at once, and hides those of the others.
//   [data-authorization-for="basic"]  a part of the page that belongs to one type
//   [data-authorization-change]       the submit button that does the same without JavaScript
"use strict";

(() => {
  const show = () => {
    const chosen = document.querySelector("[name=authorization_type]:checked")?.value ?? "none";
    for (const part of document.querySelectorAll("[data-authorization-for]")) {
      part.hidden = part.dataset.authorizationFor !== chosen;
    }
  };

  document.querySelector("[data-authorization-change]")?.setAttribute("hidden", "");
  document.addEventListener("change", (event) => {
    if (event.target.name === "authorization_type") show();
  });
  // A browser may bring back the choice of an earlier visit.
  addEventListener("pageshow", show);
  // A panel that htmx drew anew.
  document.addEventListener("htmx:afterSettle", show);
})();
