// Selects rows of a list: a whole page at once, ranges with Shift, with a count.
//   [data-choose="name"] the rows with their checkboxes of this name; htmx may replace them
//   [data-choose-page]   the checkbox in the table's head
//   [data-choose-all]    selects all matches, on other pages too; its value is their number
//   [data-choose-count]  data-text="Selected: %"; its own text while no row is selected
"use strict";

(() => {
  let last = null;

  const boxes = (area) => [...area.querySelectorAll(`input[name="${area.dataset.choose}"]`)];

  const show = (area) => {
    const all = boxes(area);
    const count = all.filter((box) => box.checked).length;
    const page = area.querySelector("[data-choose-page]");
    if (page) {
      page.hidden = false;
      page.checked = count > 0 && count === all.length;
      page.indeterminate = count > 0 && count < all.length;
    }
    const text = area.querySelector("[data-choose-count]");
    const everything = area.querySelector("[data-choose-all]");
    if (text) {
      text.dataset.none ??= text.textContent;
      const shown = everything?.checked ? everything.dataset.chooseAll : count;
      text.textContent = shown ? text.dataset.text.replace("%", shown) : text.dataset.none;
    }
  };

  const start = () => document.querySelectorAll("[data-choose]").forEach(show);

  document.addEventListener("click", (event) => {
    const area = event.target.closest?.("[data-choose]");
    const all = area ? boxes(area) : [];
    if (!all.includes(event.target)) return;
    const [from, to] = [all.indexOf(last), all.indexOf(event.target)].sort((a, b) => a - b);
    if (event.shiftKey && from >= 0) {
      for (const box of all.slice(from, to + 1)) box.checked = event.target.checked;
    }
    last = event.target;
  });

  document.addEventListener("change", (event) => {
    const area = event.target.closest("[data-choose]");
    if (!area) return;
    if (event.target.matches("[data-choose-page]")) {
      for (const box of boxes(area)) box.checked = event.target.checked;
    }
    show(area);
  });

  document.addEventListener("htmx:afterSwap", start);
  addEventListener("pageshow", start);
})();
