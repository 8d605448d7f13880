// Filters the event types while somebody types.
//   [data-filtered]                    around everything
//   [data-filter-box] > [data-filter]  the input, hidden until this script runs
//   [data-filter-group], [data-filter-item], [data-filter-label="words of the group"]
"use strict";

(() => {
  const root = document.querySelector("[data-filtered]");
  if (!root) return;
  const input = root.querySelector("[data-filter]");

  const filter = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const matches = (text) => words.every((word) => text.toLowerCase().includes(word));
    let found = 0;
    for (const group of root.querySelectorAll("[data-filter-group]")) {
      const label = group.querySelector("[data-filter-label]").dataset.filterLabel;
      let shown = 0;
      for (const item of group.querySelectorAll("[data-filter-item]")) {
        const value = item.querySelector("input").value;
        item.hidden = !matches(`${label} ${item.textContent} ${value}`);
        shown += !item.hidden;
      }
      group.hidden = !shown;
      found += shown;
    }
    root.querySelector("[data-filter-empty]").hidden = found > 0;
  };

  root.querySelector("[data-filter-box]").hidden = false;
  input.addEventListener("input", filter);
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter") event.preventDefault();
    if (event.key !== "Escape" || !input.value) return;
    input.value = "";
    filter();
  });
})();
