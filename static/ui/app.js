// Small enhancements of every page; each page works without them.
//   data-copy="text" or data-copy-from="#id"  a button that copies, then confirms it (data-copied)
//   details.menu                               closes on Escape and on a click elsewhere
//   data-dismiss                               removes the closest .alert
//   select[data-submits]                       submits its form when it changes
//   time[data-ago]                             "5 minutes ago", kept up to date; "due" says "due now" afterwards
//   script[data-past data-future data-due]     the words for times less than a minute away
//   .shell-nav [aria-current]                  is scrolled into view in a narrow window
"use strict";

(() => {
  const soon = document.currentScript.dataset;

  const copy = async (button) => {
    const source = button.dataset.copyFrom && document.querySelector(button.dataset.copyFrom);
    const text = source ? (source.value ?? source.textContent.trim()) : button.dataset.copy;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Pages over plain http have no clipboard API: select the text for Ctrl+C.
      if (source?.select) source.select();
      else if (source) getSelection().selectAllChildren(source);
      return;
    }
    button.classList.add("is-copied");
    const announcer = document.getElementById("announcer");
    if (announcer) announcer.textContent = button.dataset.copied ?? "";
    setTimeout(() => button.classList.remove("is-copied"), 1600);
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy], [data-copy-from]");
    if (button) copy(button);
    event.target.closest("[data-dismiss]")?.closest(".alert")?.remove();
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
  });

  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });

  document.addEventListener("change", (event) => {
    if (event.target.matches("select[data-submits]")) event.target.form.requestSubmit();
  });

  const STEPS = [["day", 86400], ["hour", 3600], ["minute", 60]];

  const tick = () => {
    const words = new Intl.RelativeTimeFormat(document.documentElement.lang, { numeric: "always" });
    for (const time of document.querySelectorAll("time[data-ago]")) {
      const seconds = (new Date(time.dateTime) - Date.now()) / 1000;
      const step = STEPS.find(([, size]) => Math.abs(seconds) >= size);
      if (seconds <= 0 && time.dataset.ago === "due") time.textContent = soon.due;
      else if (!step) time.textContent = seconds > 0 ? soon.future : soon.past;
      // Weeks, months and years stay as rendered.
      else if (Math.abs(seconds) < 7 * 86400)
        time.textContent = words.format(Math.trunc(seconds / step[1]), step[0]);
    }
  };

  setInterval(tick, 30_000);

  document.querySelector(".shell-nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
})();
