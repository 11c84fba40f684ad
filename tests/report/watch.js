// What every look shares: count trouble, find and press things, write what was seen in place of the page.
const seen = { trouble: [] };
for (const name of ["alert", "confirm", "prompt", "open"]) window[name] = () => seen.trouble.push(name);
addEventListener("error", (event) => seen.trouble.push(event.message));
addEventListener("securitypolicyviolation", (event) => seen.trouble.push(event.violatedDirective));
const all = (query) => [...document.querySelectorAll(query)];
const texts = (query) => all(query).map((node) => node.textContent);
const press = (query) => all(query)[0].click();
const type = (id, words) => {
  document.getElementById(id).value = words;
  document.getElementById(id).dispatchEvent(new Event("input", { bubbles: true }));
};
const FOREIGN = ["script", "style", "svg", "meta", "form", "input", "a", "img", "iframe", "link", "base", "template", "object",
  "[href]", "[src]", "[srcdoc]", "[action]", "[autofocus]", "[onerror]", "[onload]", "[onfocus]", "[onclick]"];
addEventListener("load", () => {
  try { look(); } catch (error) { seen.trouble.push(String(error)); }
  seen.foreign = Object.fromEntries(FOREIGN.map((query) => [query, all(query).length]));
  seen.requests = performance.getEntriesByType("resource").length;
  const result = document.createElement("pre");
  result.id = "seen";
  result.textContent = JSON.stringify(seen);
  document.documentElement.replaceChildren(result); // --dump-dom dies of half a surrogate pair, in the title too
});
