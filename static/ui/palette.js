// The search of every page: "/" or Ctrl-K opens it; results update while typing.
//   data-palette   a link to the search page; with this script it opens the dialog instead
// Arrow keys move through the results; Enter without a selected result opens the search page.
"use strict";

(() => {
  const dialog = document.getElementById("palette");
  if (!dialog) return;
  const form = dialog.querySelector("form");
  const input = form.elements.q;
  const results = dialog.querySelector(".search-results");
  let latest = 0;
  let timer = 0;

  const look = async () => {
    const number = ++latest;
    const address = `${form.action}?${new URLSearchParams({ q: input.value })}`;
    const answer = await fetch(address, { headers: { "HX-Request": "true" } }).catch(() => null);
    if (number !== latest || !answer?.ok) return;
    if (answer.redirected) {
      // Only a login redirects; its message is behind the dialog.
      dialog.close();
      document.dispatchEvent(new Event("session:ended"));
      return;
    }
    const html = await answer.text();
    const selected = document.activeElement.closest(".search-results a")?.href;
    results.innerHTML = html;
    // What was selected stays so, for Enter and the next arrow key.
    if (selected) ([...results.querySelectorAll("a")].find((link) => link.href === selected) ?? input).focus();
  };

  const open = () => {
    if (!dialog.open) dialog.showModal();
    input.select();
    look();
  };

  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey && event.key.toLowerCase() === "k") {
      event.preventDefault();
      open();
    }
  });
  document.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
    if (!event.target.closest("[data-palette]") || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    open();
  });
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(look, 150);
  });
  dialog.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const stops = [input, ...results.querySelectorAll("a")];
    stops[(stops.indexOf(document.activeElement) + step + stops.length) % stops.length].focus();
  });
})();
