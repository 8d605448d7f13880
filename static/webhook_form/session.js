// Before a form is submitted, checks that there is a network and a valid session, so that no input is lost.
//   form[data-session="url"]  URL of the current CSRF token, which a login in another tab changes
//   [data-logged-out]         shown while the user is logged out
//   [data-offline]            shown while there is no network
"use strict";

(() => {
  const form = document.querySelector("form[data-session]");
  const note = document.querySelector("[data-logged-out]");
  const offline = document.querySelector("[data-offline]");
  if (!form || !note) return;
  let isSure = false;
  let isAsking = false;

  const renew = (token) => {
    for (const field of document.getElementsByName("csrfmiddlewaretoken")) field.value = token;
    document.body.setAttribute("hx-headers", JSON.stringify({ "x-csrftoken": token }));
  };
  // A site on this machine is reachable without a network. If the request fails although there is a network,
  // submit anyway: the browser shows the error.
  const ask = async () => {
    try {
      const answer = await fetch(form.dataset.session, { redirect: "manual" });
      note.hidden = answer.type !== "opaqueredirect";
      offline.hidden = true;
      if (answer.ok) renew((await answer.json()).csrf);
    } catch {
      note.hidden = true;
      offline.hidden = navigator.onLine;
    }
    return note.hidden && offline.hidden;
  };

  // In the capture phase, before other listeners treat the page as left.
  document.addEventListener("submit", async (event) => {
    if (event.target !== form || isSure) {
      isSure = false;
      return;
    }
    event.preventDefault();
    event.stopImmediatePropagation();
    if (isAsking) return;
    isAsking = true;
    isSure = await ask();
    isAsking = false;
    if (isSure) form.requestSubmit(event.submitter);
  }, true);
  addEventListener("online", () => (offline.hidden = true));
  for (const type of ["focus", "pageshow"]) {
    addEventListener(type, () => note.hidden || ask());
  }
})();
