// Tells the test whatever runs and whatever the content security policy stops. See looking.py.
"use strict";

(() => {
  const note = (what) => window.__noted(String(what));
  for (const name of ["alert", "confirm", "prompt", "print", "open"])
    window[name] = () => note(`executed: ${name}`);
  addEventListener("securitypolicyviolation", (event) =>
    note(`policy: ${event.effectiveDirective} ${event.blockedURI} ${event.sample}`));
})();
