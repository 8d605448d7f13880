// Colours indented JSON and makes its parts foldable; without this script it is plain text.
//   pre[data-json]   the text, one container per run of lines, escapes marked as span.escape
// Selecting and copying gives the same text. Deep parts start folded.
"use strict";

(() => {
  const OPEN_DEPTH = 4;
  const PIECE = /("(?:[^"\\]|\\.)*")(\s*:)?|\b(true|false|null)\b|-?\d[\d.eE+-]*/g;
  // Text on the page contains neither, since invisible characters are escaped.
  const [BEGIN, END] = ["\u0001", "\u0002"];

  const span = (name, text) => {
    const element = document.createElement("span");
    element.className = name;
    text.split(/\u0001([^\u0002]*)\u0002/).forEach((part, index) => {
      element.append(index % 2 ? span("escape", part) : part);
    });
    return element;
  };

  const coloured = (line) => {
    const parts = document.createDocumentFragment();
    let end = 0;
    for (const found of line.matchAll(PIECE)) {
      parts.append(span("", line.slice(end, found.index)));
      const [all, text, colon, literal] = found;
      const kind = colon ? "key" : text ? "string" : literal ? "literal" : "number";
      parts.append(span(`json-${kind}`, text ?? all), colon ?? "");
      end = found.index + all.length;
    }
    parts.append(span("", line.slice(end)));
    return parts;
  };

  const draw = (pre) => {
    for (const escape of pre.querySelectorAll(".escape")) escape.replaceWith(BEGIN + escape.textContent + END);
    const lines = pre.textContent.split("\n");
    const stack = [document.createDocumentFragment()];
    for (const [index, line] of lines.entries()) {
      if (stack.length > 1 && /^\s*[}\]]/.test(line)) stack.pop();
      const place = stack.at(-1);
      const break_ = index < lines.length - 1 ? "\n" : "";
      const details = document.createElement("details");
      if (!/[{[]$/.test(line)) place.append(coloured(line), break_);
      if (!/[{[]$/.test(line)) continue;
      details.open = stack.length <= OPEN_DEPTH;
      details.append(document.createElement("summary"));
      details.firstChild.append(coloured(line), break_);
      place.append(details);
      stack.push(details);
    }
    pre.replaceChildren(stack[0]);
    pre.removeAttribute("data-json");
  };

  const drawAll = () => document.querySelectorAll("pre[data-json]").forEach(draw);
  document.addEventListener("htmx:afterSettle", drawAll);
  drawAll();
})();
