// Shows when a panel could not be loaded, and leads to the login when the session has expired, which the event
// "session:ended" on the document reports.
//   [data-failure]     the message, hidden while requests succeed
//   [data-logged-out]  shown instead of a reload on pages where a reload would lose input
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
    // Redirected: the response to a panel's request is the login.
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
