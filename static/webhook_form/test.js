// Sends a test of what is saved without leaving the page. What is not saved yet is saved first, by
// the submit button itself, and the page comes back with the test.
//   button[data-test]  Send test, wherever it stands   #test-result  asks htmx for the test at "send"
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
