// A reader of an ordinary report: leaf, sort, search, filter, open, change the theme.
function look() {
  seen.title = document.title;
  seen.headings = texts("h1, h2");
  seen.funnel = all("#funnel li").map((li) => [...li.children].map((node) => node.textContent));
  seen.reasons = texts("#reasons .label").length;
  press("#reasons .more");
  seen.reasonsAfter = texts("#reasons .label").length;
  seen.scores = [texts("#scores-lead")[0], texts("#unscored")[0], texts("svg text.threshold")[0]];
  seen.bars = all("svg rect").map((bar) => [bar.getAttribute("class"), Number(bar.getAttribute("height"))]);
  seen.two = [texts("#two-lead")[0], all("#points circle").map((dot) =>
    [dot.getAttribute("class"), Number(dot.getAttribute("cx")), Number(dot.getAttribute("cy"))])];
  seen.kept = texts("#pair .kept .verdict b");
  press("#pair .kept .buttons button:last-child");
  seen.kept.push(...texts("#pair .kept .verdict b"), ...texts("#pair .kept .place"));
  seen.dropped = texts("#pair .dropped .id");
  seen.sample = texts("#sample")[0];
  const ids = () => texts("#body .open");
  seen.first = ids();
  const last = all("#pager button")[3];
  last.focus();
  last.click();
  seen.last = [ids().at(-1), texts("#pager-place")[0], document.activeElement === last];
  press("#heads .score button");
  seen.highest = [...ids().slice(0, 3), all("#heads .score")[0].getAttribute("aria-sort"), texts("#pager-place")[0]];
  press("#heads .score button");
  seen.lowest = [...ids().slice(0, 3), all("#heads .score")[0].getAttribute("aria-sort")];
  press("#heads .id button");
  seen.byId = ids().slice(0, 3);
  type("search", " is  77,\nno LESS ");
  seen.none = [texts("#count")[0], texts("#body .empty").length];
  type("search", "IT IS  77,");
  seen.found = [ids(), texts("#count")[0]];
  press("#body .open");
  seen.opened = [all("#body .open")[0].getAttribute("aria-expanded"), texts(".detail .words"), texts(".detail .parts dd"),
    document.getElementById(all("#body .open")[0].getAttribute("aria-controls")).hidden];
  type("search", "");
  type("action", "keep");
  seen.keptOnly = [texts("#count")[0], new Set(texts("#body .pill")).size];
  const paper = () => getComputedStyle(document.body).backgroundColor;
  const before = paper();
  press("#theme");
  seen.theme = [before !== paper(), texts("#theme")[0]];
}
