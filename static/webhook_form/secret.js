// Shows a secret while it is typed, for who wants to see it. Nothing is shown that was stored.
//   [data-secret] > input, button[data-reveal data-show data-hide]  hidden until something is typed
"use strict";

(() => {
  const show = (field, isShown) => {
    const button = field.querySelector("[data-reveal]");
    field.querySelector("input").type = isShown ? "text" : "password";
    button.textContent = isShown ? button.dataset.hide : button.dataset.show;
    button.setAttribute("aria-pressed", isShown);
  };

  document.addEventListener("input", (event) => {
    const field = event.target.closest("[data-secret]:has([data-reveal])");
    if (!field) return;
    field.querySelector("[data-reveal]").hidden = !event.target.value;
    if (!event.target.value) show(field, false);
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-reveal]");
    if (button) show(button.closest("[data-secret]"), button.getAttribute("aria-pressed") !== "true");
  });
  // Password managers offer to save, and browsers remember, what is sent as text.
  document.addEventListener("submit", () => {
    for (const field of document.querySelectorAll("[data-secret]:has([data-reveal])")) show(field, false);
  }, true);
})();
