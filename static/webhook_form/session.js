// Before a form is sent, makes sure that there is a network and that somebody is still logged in: what was typed
// stays here.
//   form[data-session="url"]  asked for the newest CSRF token, which a login elsewhere has changed
//   [data-logged-out]         says that nobody is logged in, and hides when somebody is again
//   [data-offline]            says that there is no network, and hides when there is one again
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
  // A site on this machine can be asked without a network. One that cannot be asked, although there is one, says by
  // itself what is wrong.
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

  // Capturing: before anything else takes the page for left.
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
