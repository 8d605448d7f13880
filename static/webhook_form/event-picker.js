// The picker of event types: shows the current choice, searches, and supports the arrow keys.
// Escape clears the search, then closes the picker.
//   details[data-picker data-empty data-all]        the picker
//   [data-picker-chosen], [data-picker-count]       the chosen types, and their number
//   [data-picker-search] input                      hidden until this script runs
//   [data-picker-group="label"], [data-picker-item="short label"]
"use strict";

(() => {
  const picker = document.querySelector("[data-picker]");
  if (!picker) return;
  const summary = picker.querySelector("summary");
  const chosen = picker.querySelector("[data-picker-chosen]");
  const count = picker.querySelector("[data-picker-count]");
  const box = picker.querySelector("[data-picker-search]");
  const search = box.querySelector("input");
  const groups = [...picker.querySelectorAll("[data-picker-group]")];
  const items = (root) => [...root.querySelectorAll("[data-picker-item]")];
  const isChecked = (item) => item.querySelector("input").checked;
  const matches = (pattern, type) =>
    pattern.endsWith("*") ? type.startsWith(pattern.slice(0, -1)) : pattern === type;

  const say = () => {
    const words = groups.map((group) => {
      const isWhole = group.querySelector(".picker-all input").checked;
      const here = isWhole ? items(group) : items(group).filter(isChecked);
      const named = isWhole ? [picker.dataset.all] : here.map((item) => item.dataset.pickerItem);
      return named.length ? `${group.dataset.pickerGroup}: ${named.join(", ")}` : "";
    });
    const others = items(picker).filter((item) => !item.closest("[data-picker-group]") && isChecked(item));
    words.push(...others.map((item) => item.dataset.pickerItem));
    const text = words.filter(Boolean).join("; ");
    chosen.textContent = text || picker.dataset.empty;
    chosen.classList.toggle("faint", !text);
    const patterns = [...picker.querySelectorAll("input:checked")].map((box) => box.value);
    const types = groups.flatMap(items).map((item) => item.querySelector("input").value);
    const wanted = types.filter((type) => patterns.some((pattern) => matches(pattern, type)));
    count.textContent = wanted.length;
    count.hidden = !wanted.length;
  };

  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    for (const group of groups) {
      const shown = items(group).filter((item) => {
        const text = `${group.dataset.pickerGroup} ${item.textContent} ${item.querySelector("input").value}`;
        item.hidden = !words.every((word) => text.toLowerCase().includes(word));
        return !item.hidden;
      });
      group.hidden = !shown.length;
      found += shown.length;
    }
    box.querySelector("[data-picker-empty]").hidden = found > 0;
  };

  const step = (by) => {
    const stops = [search, ...picker.querySelectorAll("[type=checkbox]")].filter((one) => one.checkVisibility());
    const next = stops[stops.indexOf(document.activeElement) + by];
    next?.focus();
  };

  box.hidden = false;
  search.addEventListener("input", filter);
  picker.addEventListener("change", say);
  picker.addEventListener("toggle", () => {
    if (picker.open && document.activeElement === summary) search.focus();
  });
  picker.addEventListener("keydown", (event) => {
    if (event.target === search && event.key === "Enter") event.preventDefault();
    if (["ArrowDown", "ArrowUp"].includes(event.key) && picker.open) {
      event.preventDefault();
      step(event.key === "ArrowDown" ? 1 : -1);
    }
    if (event.key !== "Escape" || !picker.open) return;
    if (search.value) {
      search.value = "";
      filter();
    } else {
      picker.open = false;
      summary.focus();
    }
  });
  addEventListener("pageshow", say);
})();
