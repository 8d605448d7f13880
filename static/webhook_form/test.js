// Sends a test of the saved webhook without leaving the page. Unsaved changes are saved first, by
// the submit button itself, and the page reloads with the test.
//   button[data-test]  any Send test button   #test-result  loads the test by htmx on the event "send"
"use strict";

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-test]");
  if (!button) return;
  const result = document.getElementById("test-result");
  const isDirty = document.querySelector("form[data-dirty]")?.dataset.isDirty === "true";
  if (result && !isDirty) {
    event.preventDefault();
    htmx.trigger(result, "send");
    return;
  }
  if (button.form.elements.shows_test) return;
  const answer = Object.assign(document.createElement("input"), { type: "hidden", name: "shows_test", value: "1" });
  button.form.append(answer);
});
