// Everything shown, every record opened: what stands in the page?
function look() {
  for (let more; (more = all(".more:not([hidden])")[0]);) more.click();
  seen.head = [texts("#title")[0], texts("#method")[0], texts("#command")[0], ...texts("#facts dd").slice(0, 2)];
  seen.facts = texts("#facts dt").slice(2);
  seen.funnel = texts("#funnel .label");
  seen.reasons = texts("#reasons .label");
  seen.pair = texts("#pair .message.user .words");
  seen.broken = [texts(".broken b"), texts(".broken .pill"), texts(".broken bdi"), texts(".broken pre")];
  seen.rows = [];
  for (let more = true; more;) {
    for (const opener of all("#body .open")) opener.click();
    all("#body .detail").forEach((detail) => seen.rows.push([...detail.querySelectorAll(".about dd, .parts dt, .role, .words")]
      .map((node) => node.textContent)));
    const next = all("#pager button")[2];
    more = next.getAttribute("aria-disabled") === "false";
    next.click();
  }
  seen.wide = document.documentElement.scrollWidth > innerWidth;
}
