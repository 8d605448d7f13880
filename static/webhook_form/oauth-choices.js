// Shows the parts of the form that belong to a chosen radio, at once.
//   [data-shown-when="name=value"]  hidden unless the radio of this name has this value
"use strict";

(() => {
  const show = () => {
    for (const part of document.querySelectorAll("[data-shown-when]")) {
      const [name, value] = part.dataset.shownWhen.split("=");
      const chosen = document.querySelector(`[name="${name}"]:checked`);
      if (chosen) part.hidden = chosen.value !== value;
    }
  };

  document.addEventListener("change", (event) => {
    if (event.target.type === "radio") show();
  });
  // A browser may bring back the choice of an earlier visit.
  addEventListener("pageshow", show);
  // A panel that htmx drew anew.
  document.addEventListener("htmx:afterSettle", show);
})();
