// Keeps the summary of a closed section correct: after a change it says so instead of the saved
// values. The target of a link is opened.
//   details[data-fold] > summary > [data-fold-summary data-changed="words"]
"use strict";

(() => {
  // The display option of the filter preview is not a setting.
  const values = (section) =>
    JSON.stringify([...section.querySelectorAll(":is(input, select, textarea):not([name='filter-shown'])")].map((control) =>
      ["checkbox", "radio"].includes(control.type) ? control.checked : control.value));
  const line = (section) => section.querySelector("[data-fold-summary]");
  const saved = new Map();

  for (const section of document.querySelectorAll("details[data-fold]")) {
    saved.set(section.id, { values: values(section), words: line(section).textContent });
  }

  const show = (section) => {
    const before = saved.get(section?.id);
    if (!before) return;
    const isChanged = values(section) !== before.values;
    line(section).textContent = isChanged ? line(section).dataset.changed : before.words;
  };
  for (const type of ["input", "toggle"]) {
    document.addEventListener(type, (event) => show(event.target.closest?.("details[data-fold]")), true);
  }

  const open = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let part = target; part; part = part.parentElement) if (part.matches("details")) part.open = true;
    target.scrollIntoView();
  };
  addEventListener("hashchange", open);
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    if (link && link.hash === location.hash) open();
  });
  open();
})();
