// Keyboard shortcuts; templates/webhooks/ui/_shortcuts.html lists them under “?”.
//   data-key="n"         a link or button that this key activates, wherever it is on the page
//   data-shortcuts       opens the list
//   data-shortcuts-on    a checkbox that turns the keys on and off, stored in localStorage
"use strict";

(() => {
  const dialog = document.getElementById("shortcuts");
  if (!dialog) return;
  const toggle = dialog.querySelector("[data-shortcuts-on]");

  try {
    toggle.checked = localStorage.getItem("shortcuts") !== "off";
  } catch {
    // Without localStorage the keys are on.
  }

  const isTyping = (target) =>
    target.isContentEditable || target.matches("select, textarea, input:not([type=checkbox], [type=radio], [type=submit])");

  const step = (by) => {
    const links = [...document.querySelectorAll("main tbody tr")]
      .map((row) => row.querySelector("a[href]"))
      .filter((link) => link?.checkVisibility());
    const at = links.findIndex((link) => link.closest("tr").contains(document.activeElement));
    links[at < 0 ? (by > 0 ? 0 : links.length - 1) : at + by]?.focus();
  };

  const actions = {
    "?": () => dialog.showModal(),
    j: () => step(1),
    k: () => step(-1),
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (isTyping(event.target) || document.querySelector("dialog[open]")) return;
    if (!toggle.checked && event.key !== "?") return;
    const pressed = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
    const act = actions[event.key] ?? (pressed && (() => pressed.click()));
    if (!act) return;
    event.preventDefault();
    act();
  });

  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-shortcuts]")) dialog.showModal();
    if (event.target === dialog) dialog.close();
  });
  toggle.addEventListener("change", () => localStorage.setItem("shortcuts", toggle.checked ? "on" : "off"));
  for (const button of document.querySelectorAll("[data-shortcuts]")) button.hidden = false;
})();
