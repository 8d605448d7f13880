// Adds header rows without a reload, and masks a value as soon as it is marked as secret.
//   [data-headers]  around [data-header-list] of [data-header-row], [data-header-template] with
//                   __prefix__ for the row's number, and the [data-header-add] submit button
"use strict";

(() => {
  const root = document.querySelector("[data-headers]");
  if (!root) return;
  const list = root.querySelector("[data-header-list]");
  const total = root.querySelector("[name=headers-TOTAL_FORMS]");

  root.querySelector("[data-header-add]").addEventListener("click", (event) => {
    event.preventDefault();
    const html = root.querySelector("[data-header-template]").innerHTML;
    list.insertAdjacentHTML("beforeend", html.replaceAll("__prefix__", total.value));
    total.value = Number(total.value) + 1;
    list.lastElementChild.querySelector("input").focus();
  });

  root.addEventListener("change", (event) => {
    if (!event.target.name?.endsWith("-is_secret")) return;
    const row = event.target.closest("[data-header-row]");
    row.querySelector("[name$=-value]").type = event.target.checked ? "password" : "text";
  });
})();
