// The parameters' buttons are htmx; this keeps the rest of the form out of their requests, searches
// the variables, and puts a picked one where the cursor is in the JSON body.
//   [data-parameters]  the section   [data-json-body]  the body   [data-place="name"]  a variable
//   [data-variables data-added] around [data-variables-box] input, [data-variable], and
//   [data-variables-empty]
"use strict";

(() => {
  const root = document.querySelector("[data-parameters]");
  if (!root) return;
  const list = root.querySelector("[data-variables]");
  const body = root.querySelector("[data-json-body]");
  const search = list.querySelector("[data-variables-box] input");
  const isOurs = (name) => /^(action|event_types|method|body_|parameter)/.test(name);
  const isBody = () => root.querySelector("[name=parameters_mode]:checked")?.value === "template";

  root.addEventListener("htmx:configRequest", (event) => {
    const parameters = event.detail.parameters;
    for (const name of Object.keys(parameters)) if (!isOurs(name)) delete parameters[name];
  });

  list.querySelector("[data-variables-box]").hidden = false;
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter") event.preventDefault();
  });
  search.addEventListener("input", () => {
    const words = search.value.toLowerCase().split(/\s+/);
    let found = 0;
    for (const item of list.querySelectorAll("[data-variable]")) {
      const text = item.textContent.toLowerCase();
      item.hidden = !words.every((word) => text.includes(word));
      found += !item.hidden;
    }
    list.querySelector("[data-variables-empty]").hidden = found > 0;
  });

  // Before htmx, which listens on the buttons themselves.
  list.addEventListener("click", (event) => {
    const button = event.target.closest("[data-place]");
    if (!button) return;
    document.getElementById("announcer").textContent = `${list.dataset.added}: ${button.dataset.place}`;
    if (!isBody()) return;
    event.preventDefault();
    event.stopPropagation();
    const place = `{{ ${button.dataset.place} }}`;
    const isInText = (body.value.slice(0, body.selectionStart).match(/(?<!\\)"/g) ?? []).length % 2;
    body.setRangeText(isInText ? place : `"${place}"`, body.selectionStart, body.selectionEnd, "end");
    body.focus();
    body.dispatchEvent(new Event("input", { bubbles: true }));
  }, true);
})();
