// Fills in fields of the form, lists them, and can undo it.
//   event "form:fill" {name: text}     fills in these fields
//   button[data-fill='{"name": ""}']   fills in these fields when it is clicked
//   [data-filled]                      contains [data-filled-names] and [data-undo]
"use strict";

(() => {
  const form = document.querySelector("#webhook-form");
  const note = form?.querySelector("[data-filled]");
  if (!note) return;
  let before = {};

  const label = (name) =>
    form.querySelector(`.field:has([name="${name}"]) > .field-label`)?.textContent ?? "";

  // Listeners expect the change event on the newly checked radio.
  const target = (control) =>
    control instanceof RadioNodeList ? [...control].find((radio) => radio.checked) : control;

  const set = (name, value) => {
    const control = form.elements[name];
    if (!control || control.value === value) return false;
    before[name] = control.value;
    control.value = value;
    for (const kind of ["input", "change"]) {
      target(control)?.dispatchEvent(new Event(kind, { bubbles: true }));
    }
    return true;
  };

  const fill = (values) => {
    before = {};
    const changed = Object.keys(values).filter((name) => set(name, values[name]));
    const labels = changed.filter((name) => name !== "provider").map(label);
    note.hidden = !labels.length;
    note.querySelector("[data-filled-names]").textContent = labels.join(", ");
  };

  form.addEventListener("form:fill", (event) => fill(event.detail));
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-fill]");
    if (button) {
      event.preventDefault();
      fill(JSON.parse(button.dataset.fill));
      note.scrollIntoView({ block: "center" });
    }
    if (event.target.closest("[data-undo]")) fill({ ...before });
  });
})();
