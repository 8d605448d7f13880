// Sets the colour theme before the first paint, and lets the header's button change it.
// The choice is stored in localStorage under Django admin's key: auto, light or dark.
"use strict";

(() => {
  const THEMES = ["auto", "light", "dark"];
  const root = document.documentElement;

  const read = () => {
    try {
      const stored = localStorage.getItem("theme");
      return THEMES.includes(stored) ? stored : "auto";
    } catch {
      return "auto";
    }
  };

  const show = (theme) => {
    root.dataset.theme = theme;
    for (const button of document.querySelectorAll("[data-theme-toggle]")) {
      button.dataset.shows = theme;
      button.title = button.dataset[`label${theme[0].toUpperCase()}${theme.slice(1)}`];
      button.setAttribute("aria-label", button.title);
      button.hidden = false;
    }
  };

  show(read());
  document.addEventListener("DOMContentLoaded", () => show(read()));
  addEventListener("storage", () => show(read()));
  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-theme-toggle]")) return;
    const next = THEMES[(THEMES.indexOf(read()) + 1) % THEMES.length];
    try {
      localStorage.setItem("theme", next);
    } catch {
      // Without localStorage the choice lasts until the page is left.
    }
    show(next);
  });
})();
