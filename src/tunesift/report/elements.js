"use strict";
// What both pages are drawn with, before their own script in one block.
// Text from the data reaches a page as text nodes and attribute values only, never as markup.
const byId = (id) => document.getElementById(id);
const report = JSON.parse(byId("report-data").textContent);

const PART = new Map([["user", "Instruction"], ["assistant", "Response"], ["system", "System"], ["rejected", "Rejected response"]]);
const integer = new Intl.NumberFormat("en-US");
const count = (n, one, many = `${one}s`) => `${integer.format(n)} ${n === 1 ? one : many}`;

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.filter((child) => child !== null));
  return node;
}

const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const text = (tag, words, kind = "") => el(tag, { dir: "auto", class: kind }, words);
const empty = (words) => el("p", { class: "empty" }, words);
const said = (words) => words === "" ? empty("(empty)") : text("div", words, "words");

function drawTheme() {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const name = () => { byId("theme").textContent = dark() ? "Light theme" : "Dark theme"; };
  byId("theme").addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    name();
  });
  system.addEventListener("change", name);
  name();
}
