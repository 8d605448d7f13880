// The parameters' buttons use htmx; this keeps the rest of the form out of their requests, names a
// parameter after its variable, and inserts a variable at the cursor in the JSON body.
//   [data-parameters]  the section   select[data-source]  what a row sends   [data-path]  its own name
//   [data-json-body]  the body   select[data-insert], button[data-insert-button]  a variable for it
"use strict";

(() => {
  const root = document.querySelector("[data-parameters]");
  if (!root) return;
  const body = root.querySelector("[data-json-body]");
  const isOurs = (name) => /^(action|event_types|method|webhook|body_|parameter)/.test(name);

  root.addEventListener("htmx:configRequest", (event) => {
    const parameters = event.detail.parameters;
    for (const name of Object.keys(parameters)) if (!isOurs(name)) delete parameters[name];
  });

  root.addEventListener("change", (event) => {
    if (!event.target.matches("[data-source]")) return;
    const row = event.target.closest(".parameter-row");
    const [, picked = ""] = event.target.value.match(/^=(.*)/) ?? [];
    row.querySelector("[data-path]").textContent = picked;
    const name = row.querySelector("[name$=-name]");
    if (picked && picked !== "*" && !name.value) name.value = picked;
    if (!picked && event.target.value) row.querySelector("[name$=-content]").focus();
  });

  root.querySelector("[data-insert-button]").addEventListener("click", (event) => {
    event.preventDefault();
    const place = `{{ ${root.querySelector("[data-insert]").value} }}`;
    const isInText = (body.value.slice(0, body.selectionStart).match(/(?<!\\)"/g) ?? []).length % 2;
    body.setRangeText(isInText ? place : `"${place}"`, body.selectionStart, body.selectionEnd, "end");
    body.focus();
    body.dispatchEvent(new Event("input", { bubbles: true }));
  });
})();
