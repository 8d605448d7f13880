// Keeps the line of a folded section true: after a change it says so instead of what was saved.
//   details[data-fold] > summary > [data-fold-summary data-changed="words"]
"use strict";

(() => {
  const values = (section) =>
    JSON.stringify([...section.querySelectorAll("input, select, textarea")].map((control) =>
      ["checkbox", "radio"].includes(control.type) ? control.checked : control.value));

  for (const section of document.querySelectorAll("details[data-fold]")) {
    const line = section.querySelector("[data-fold-summary]");
    const saved = { values: values(section), words: line.textContent };
    const show = () => {
      const isChanged = values(section) !== saved.values;
      line.textContent = isChanged ? line.dataset.changed : saved.words;
    };
    section.addEventListener("input", show);
    section.addEventListener("toggle", show);
  }
})();
