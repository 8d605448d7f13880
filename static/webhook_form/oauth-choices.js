// Shows the parts of the form that belong to a chosen radio, at once.
//   [data-shown-when="name=value,other"]  hidden unless the radio of this name has one of these values
"use strict";

(() => {
  const show = () => {
    for (const part of document.querySelectorAll("[data-shown-when]")) {
      const [name, values] = part.dataset.shownWhen.split("=");
      const chosen = document.querySelector(`[name="${name}"]:checked`);
      if (chosen) part.hidden = !values.split(",").includes(chosen.value);
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
