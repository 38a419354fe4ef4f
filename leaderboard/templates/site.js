"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, from = document) => Array.from(from.querySelectorAll(selector));
  const one = (selector, from = document) => from.querySelector(selector);
  root.classList.add("js");

  // Theme: the system's, until the button is pressed. Storage may be denied for a file.
  const stored = () => { try { return localStorage.getItem("tidemark-theme"); } catch { return null; } };
  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const theme = one("#theme");
  const showTheme = () => {
    theme.setAttribute("aria-pressed", String(dark()));
    theme.textContent = dark() ? "Light" : "Dark";
    theme.setAttribute("aria-label", "Dark colours");
  };
  if (["dark", "light"].includes(stored())) root.dataset.theme = stored();
  theme.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("tidemark-theme", root.dataset.theme); } catch { /* not remembered */ }
    showTheme();
  });
  theme.hidden = false;
  showTheme();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);

  // Sorting: an entry is one tbody, its scores and its evidence, so both move together. Missing figures stay last.
  const said = one("#sorted");
  const value = (entry, column, kind) => {
    const text = entry.rows[0].cells[column].dataset.value ?? "";
    return kind === "number" ? (text === "" ? null : Number(text)) : text;
  };
  const sort = (table, column, kind, direction) => {
    const sign = direction === "ascending" ? 1 : -1;
    const entries = Array.from(table.tBodies).map((entry) => [value(entry, column, kind), value(entry, 0, "number"), entry]);
    entries.sort(([a, i], [b, j]) => {
      if (a === null || b === null) return (a === null) - (b === null) || i - j;
      return (kind === "number" ? a - b : a.localeCompare(b)) * sign || i - j;
    });
    table.append(...entries.map((item) => item[2]));
  };
  for (const table of all("[data-sortable]")) {
    const heads = Array.from(table.tHead.rows[0].cells);
    heads.forEach((head, column) => {
      if (!head.dataset.sort) return;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sorter";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const other = { ascending: "descending", descending: "ascending" };
        const direction = other[head.getAttribute("aria-sort")] || head.dataset.first || "ascending";
        heads.forEach((cell) => cell.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", direction);
        sort(table, column, head.dataset.sort, direction);
        said.textContent = `Sorted by ${button.textContent.trim()}, ${direction}`;
      });
    });
  }

  // Filter: every word must occur in the entry.
  const filter = one("#filter");
  const noTrivial = one("#no-trivial");
  const allMetrics = one("#all-metrics");
  const entries = all("tbody.entry").map((entry) => [entry, entry.dataset.search.toLowerCase()]);
  const applyFilter = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const [entry, text] of entries) {
      entry.hidden = !words.every((word) => text.includes(word)) || (noTrivial.checked && entry.classList.contains("trivial"));
      shown += !entry.hidden;
    }
    const filtered = words.length > 0 || noTrivial.checked;
    for (const section of all("section.dataset")) {
      section.hidden = words.length > 0 && !one("tbody.entry:not([hidden])", section);
      for (const other of all("details.other", section)) other.hidden = filtered && !one("tbody.entry:not([hidden])", other);
    }
    one("#count").textContent = filtered ? `${shown} of ${entries.length} rows` : "";
  };
  filter.addEventListener("input", applyFilter);
  filter.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { filter.value = ""; applyFilter(); }
  });
  noTrivial.addEventListener("change", applyFilter);
  allMetrics.addEventListener("change", () => all(".board").forEach((t) => t.classList.toggle("all", allMetrics.checked)));
  if (entries.length) one(".controls").hidden = false;

  // A link to a row opens its evidence and what it lies in.
  const follow = () => {
    let target = null;
    try { target = document.getElementById(decodeURIComponent(location.hash.slice(1))); } catch { /* not an address of ours */ }
    if (!target) return;
    if (target.hidden) { filter.value = ""; noTrivial.checked = false; applyFilter(); }
    for (let node = target; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
    const proof = target.matches("tbody.entry") && one("details", target);
    if (proof) proof.open = true;
    target.scrollIntoView({ block: "start" });
  };
  addEventListener("hashchange", follow);
  follow();

  // Tooltips for drawn points, with the pointer and with the keyboard.
  const tip = one("#tip");
  const showTip = (event) => {
    const place = event.target.closest?.("[data-tip]");
    tip.hidden = !place;
    if (!place) return;
    tip.textContent = place.dataset.tip;
    const box = place.getBoundingClientRect();
    const left = Math.min(Math.max(8, box.left + box.width / 2 - tip.offsetWidth / 2), innerWidth - tip.offsetWidth - 8);
    const above = box.top - tip.offsetHeight - 8;
    tip.style.left = `${left}px`;
    tip.style.top = `${above < 4 ? box.bottom + 8 : above}px`;
  };
  document.addEventListener("pointerover", showTip);
  document.addEventListener("focusin", showTip);
  document.addEventListener("focusout", () => { tip.hidden = true; });
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

  // Two models, unit by unit: the largest differences first. Built from nodes, never from markup.
  const make = (name, attributes = {}, text = null, space = null) => {
    const node = space ? document.createElementNS(space, name) : document.createElement(name);
    for (const [key, content] of Object.entries(attributes)) node.setAttribute(key, content);
    if (text !== null) node.textContent = text;
    return node;
  };
  const SVG = "http://www.w3.org/2000/svg";
  const MOST = 40;
  const compare = (place, data, a, b) => {
    const pairs = data.units
      .map((unit, i) => [unit, data.rows[a].scores[i], data.rows[b].scores[i]])
      .filter(([, x, y]) => x !== null && y !== null)
      .sort((p, q) => Math.abs(q[1] - q[2]) - Math.abs(p[1] - p[2]));
    const better = (x, y) => (data.lower ? x < y : x > y);
    const wins = pairs.filter(([, x, y]) => better(x, y)).length;
    const losses = pairs.filter(([, x, y]) => better(y, x)).length;
    const words = `A is better on ${wins}, B on ${losses} of ${pairs.length} units` +
      (pairs.length > MOST ? `; the ${MOST} largest differences:` : ":");
    const table = make("table");
    table.append(make("caption", { class: "unseen" }, `${data.metric} by unit`));
    const head = table.createTHead().insertRow();
    for (const [title, kind] of [["Unit", ""], ["A", "number"], ["B", "number"], ["A − B", "number"], ["", ""]]) {
      head.append(title ? make("th", { scope: "col", class: kind }, title) : make("td"));
    }
    const body = table.createTBody();
    const widest = Math.max(1e-9, ...pairs.map(([, x, y]) => Math.abs(x - y)));
    for (const [unit, x, y] of pairs.slice(0, MOST)) {
      const row = body.insertRow();
      row.append(make("th", { scope: "row" }, unit), make("td", { class: "number" }, x.toFixed(3)), make("td", { class: "number" }, y.toFixed(3)));
      row.append(make("td", { class: "number" }, `${x < y ? "−" : "+"}${Math.abs(x - y).toFixed(3)}`));
      const width = (Math.abs(x - y) / widest) * 70;
      const drawing = make("svg", { viewBox: "0 0 150 14", preserveAspectRatio: "none", "aria-hidden": "true" }, null, SVG);
      drawing.append(make("rect", { class: better(x, y) ? "won-a" : "won-b", x: x < y ? 75 - width : 75, y: 2, width, height: 10 }, null, SVG));
      drawing.append(make("line", { class: "zero", x1: 75, x2: 75, y1: 0, y2: 14 }, null, SVG));
      row.insertCell().append(drawing);
    }
    place.replaceChildren(make("p", {}, words), table);
  };
  for (const box of all(".compare")) {
    const data = JSON.parse(one("script", box).textContent);
    const [a, b] = [one(".a", box), one(".b", box)];
    const update = () => compare(one(".result", box), data, Number(a.value), Number(b.value));
    a.addEventListener("change", update);
    b.addEventListener("change", update);
    update();
    box.hidden = false;
  }
})();
