// Shows what to register at the chosen provider, and fills in its fields.
//   select[data-provider]         the provider
//   [data-guide="key"]            its instructions, with data-values='{"name": "{question}"}'
//   [data-question="name"]        an input for an answer within a guide
//   [data-issuer]                 the details that open for a provider known by its issuer
//   [data-preset-fold]            the details that close when a preset fills them in
//   [data-preset-name]            shows the name of the preset
"use strict";

(() => {
  const provider = document.querySelector("[data-provider]");
  if (!provider) return;
  const guides = [...document.querySelectorAll("[data-guide]")];
  const chosen = () => guides.find((guide) => guide.dataset.guide === provider.value);

  const show = () => {
    for (const guide of guides) guide.hidden = guide !== chosen();
    if (provider.value === "openid") document.querySelector("[data-issuer]").open = true;
    const guide = chosen();
    const isFilled = Boolean(guide && "token_url" in JSON.parse(guide.dataset.values));
    for (const fold of document.querySelectorAll("[data-preset-fold]")) {
      const summary = fold.querySelector("summary");
      if (summary.hidden !== isFilled) continue;
      summary.hidden = !isFilled;
      fold.open = !isFilled;
    }
    if (isFilled) document.querySelector("[data-preset-name]").textContent = guide.dataset.label;
  };

  // People paste whole URLs where a host is requested.
  const answer = (input) => input.value.trim().replace(/^https:\/\//, "").replace(/\/+$/, "");

  const valuesOf = (guide) => {
    const values = JSON.parse(guide.dataset.values);
    // A typed scope is kept; the scope of another provider's preset is replaced or cleared.
    const scopes = guides.map((one) => JSON.parse(one.dataset.values).scope ?? "");
    if (scopes.includes(provider.form.elements.scope.value.trim())) values.scope ??= "";
    else delete values.scope;
    // So is a grant type that a preset chose.
    const grants = guides.map((one) => JSON.parse(one.dataset.values).grant_type);
    if (!("grant_type" in values) && grants.includes(provider.form.elements.grant_type.value)) {
      values.grant_type = "authorization_code";
    }
    return values;
  };

  const fill = (guide, isWanted) => {
    const questions = [...guide.querySelectorAll("[data-question]")];
    const values = {};
    for (const [name, template] of Object.entries(valuesOf(guide))) {
      if (!isWanted(template)) continue;
      const value = questions.reduce(
        (text, input) => text.replaceAll(`{${input.dataset.question}}`, answer(input) || "{}"),
        template,
      );
      // A URL stays empty until its question is answered.
      values[name] = value.includes("{}") ? "" : value;
    }
    provider.form.dispatchEvent(new CustomEvent("form:fill", { detail: values }));
  };

  provider.addEventListener("change", () => {
    show();
    const guide = chosen();
    if (guide) fill(guide, () => true);
  });

  for (const guide of guides) {
    guide.addEventListener("change", (event) => {
      const { question } = event.target.dataset;
      if (question) fill(guide, (template) => template.includes(`{${question}}`));
    });
  }
  addEventListener("pageshow", show);
})();
