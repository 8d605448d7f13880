// Says when a panel could not be fetched, and leads to the login when the session ended: "session:ended"
// on the document tells of it.
//   [data-failure]     the sentence, hidden while everything works
//   [data-logged-out]  says instead that the session ended, where a reload would lose what was typed
"use strict";

(() => {
  const show = (isFailing) => {
    const note = document.querySelector("[data-failure]");
    if (note) note.hidden = !isFailing;
  };

  document.addEventListener("htmx:beforeSwap", (event) => {
    const { xhr, requestConfig } = event.detail;
    const answered = new URL(xhr.responseURL || location.href).pathname;
    if (answered === new URL(requestConfig.path, location.href).pathname) return;
    // Redirected: only a login answers for a panel.
    event.detail.shouldSwap = false;
    document.dispatchEvent(new Event("session:ended"));
  });
  document.addEventListener("session:ended", () => {
    const note = document.querySelector("[data-logged-out]");
    if (note) note.hidden = false;
    else location.reload();
  });
  document.addEventListener("htmx:responseError", () => show(true));
  document.addEventListener("htmx:sendError", () => show(true));
  document.addEventListener("htmx:afterOnLoad", (event) => show(!event.detail.successful));
})();
