(document) => {
  // What no template of ours writes.
  const foreign = `iframe, frame, frameset, object, embed, applet, base, meta[http-equiv], math,
    marquee, style, portal, isindex, keygen, xmp, listing, video, audio, template:not([data-header-template]), slot, dialog[open],
    foreignObject, animate, set, image, svg script, script:not([src]):not([type="application/json"]),
    link:not([rel])`;
  // C0 and C1 controls but line feed, tab and return, marks and separators that turn text around.
  const trick = new RegExp(
    "[\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f\\u061c\\u200e\\u200f" +
      "\\u2028-\\u202e\\u2066-\\u2069]",
  );
  const addresses = new Set(
    `href src action formaction xlink:href data poster background srcset ping manifest
    hx-get hx-post hx-put hx-delete data-hx-get data-hx-post`.split(/\s+/),
  );
  const links = new Set(LINKS);
  const problems = [], tricks = [], text = [];
  const isParsed = document !== window.document;
  // Django's admin writes some of plain words.
  const isForeignComment = (data) => !/^[\w\s.,-]*$/.test(data);

  const lookAt = (element) => {
    if (element.matches("input, textarea, select")) text.push("\n", element.value, "\n");
    for (const { name, value } of element.attributes) {
      text.push("\n", value, "\n");
      // Scripts of a page that is shown may set a style; the policy stops those of its HTML.
      const isForeign = /^(on|hx-on|data-hx-on|srcdoc$)/.test(name) || (isParsed && name === "style");
      if (isForeign)
        problems.push(`attribute: ${name}=${value.slice(0, 120)}`);
      if (!addresses.has(name) || !value || links.has(value)) continue;
      // Of a parsed document, addresses are relative to the page that parsed it.
      const url = URL.canParse(value, location.href) ? new URL(value, location.href) : null;
      if (url?.origin !== location.origin && url?.protocol !== "mailto:")
        problems.push(`address: ${name}=${value.slice(0, 120)}`);
    }
  };

  for (const found of document.querySelectorAll(foreign))
    problems.push(`element: ${found.outerHTML.slice(0, 120)}`);
  const walker = document.createTreeWalker(document);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (node.nodeType === Node.COMMENT_NODE && isForeignComment(node.data))
      problems.push(`comment: ${node.data.slice(0, 120)}`);
    if (node.nodeType === Node.ELEMENT_NODE) lookAt(node);
    if (node.nodeType !== Node.TEXT_NODE) continue;
    text.push(node.data);
    // What can be typed has to stay as it is.
    if (trick.test(node.data) && !node.parentElement.closest("textarea"))
      tricks.push(node.parentElement.outerHTML.slice(0, 160));
  }
  return { problems, tricks, text: text.join("") };
}
