// Lets people reveal a secret while they type it. Stored secrets are never shown.
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
  // Browsers remember, and password managers offer to save, values of text inputs.
  document.addEventListener("submit", () => {
    for (const field of document.querySelectorAll("[data-secret]:has([data-reveal])")) show(field, false);
  }, true);
})();
