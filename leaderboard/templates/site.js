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
      for (const board of all(".scroll", section)) if (one(".board", board)) board.hidden = filtered && !one("tbody.entry:not([hidden])", board);
    }
    for (const task of all(".task")) task.hidden = !one("section.dataset:not([hidden])", task);
    one("#count").textContent = filtered ? `${shown} of ${entries.length} rows` : "";
  };
  filter.addEventListener("input", applyFilter);
  filter.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { filter.value = ""; applyFilter(); }
  });
  noTrivial.addEventListener("change", applyFilter);
  allMetrics.addEventListener("change", () => all(".board").forEach((t) => t.classList.toggle("all", allMetrics.checked)));
  if (entries.length) one(".controls").hidden = false;

  // A link to a row opens its evidence and what it lies in; #compare=row,row opens a comparison, #filter=words filters.
  const follow = () => {
    let hash = "";
    try { hash = decodeURIComponent(location.hash.slice(1)); } catch { return; }
    if (hash.startsWith("filter=")) { filter.value = hash.slice(7); applyFilter(); return; }
    if (hash.startsWith("compare=")) { openComparison(hash.slice(8).split(",")); return; }
    const target = document.getElementById(hash);
    if (!target) return;
    if (target.hidden || target.closest("[hidden]")) { filter.value = ""; noTrivial.checked = false; applyFilter(); }
    for (let node = target; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
    const proof = target.matches("tbody.entry") && one("details", target);
    if (proof) proof.open = true;
    target.scrollIntoView({ block: "start" });
  };

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

  // Two rows side by side. Built from nodes, never from markup.
  const SVG = "http://www.w3.org/2000/svg";
  const MOST = 40;
  const make = (name, attributes = {}, ...children) => {
    const node = "svg path circle rect line text title".split(" ").includes(name) ? document.createElementNS(SVG, name) : document.createElement(name);
    for (const [key, content] of Object.entries(attributes)) node.setAttribute(key, content);
    node.append(...children);
    return node;
  };
  const table = (caption, heads, rows) => {
    const head = make("tr", {}, ...heads.map(([title, kind]) => (title ? make("th", { scope: "col", class: kind }, title) : make("td"))));
    return make("table", {}, make("caption", { class: "unseen" }, caption), make("thead", {}, head), make("tbody", {}, ...rows));
  };
  const signed = (value, decimals) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(decimals)}`;

  const metrics = (board, a, b) => {
    const heads = Array.from(board.tHead.rows[0].cells);
    const rows = [];
    heads.forEach((head, column) => {
      if (head.dataset.sort !== "number" || column === 0 || head.classList.contains("unit")) return;
      const [x, y] = [a, b].map((entry) => entry.rows[0].cells[column]);
      if (x.dataset.value === "" && y.dataset.value === "") return;
      const both = x.dataset.value !== "" && y.dataset.value !== "";
      const difference = both ? Number(x.dataset.value) - Number(y.dataset.value) : null;
      const goodness = { higher: (v) => v, lower: (v) => -v, zero: (v) => -Math.abs(v) }[head.dataset.better];
      const lead = both && goodness ? Math.sign(goodness(Number(x.dataset.value)) - goodness(Number(y.dataset.value))) : 0;
      const shown = (cell) => (one("b", cell) || cell).textContent.trim();
      const decimals = /\.(\d+)/.exec(shown(x))?.[1].length ?? 0;
      rows.push(make("tr", {},
        make("th", { scope: "row" }, head.textContent.trim()),
        make("td", { class: `number${lead > 0 ? " better" : ""}` }, shown(x)),
        make("td", { class: `number${lead < 0 ? " better" : ""}` }, shown(y)),
        make("td", { class: "number" }, both && goodness ? signed(difference, decimals) : "")));
    });
    return table("Metrics of A and B", [["Metric", ""], ["A", "number"], ["B", "number"], ["A − B", "number"]], rows);
  };

  const scatter = (data, pairs) => {
    const [size, pad, right] = [260, 34, 16];
    const values = pairs.flatMap(([, x, y]) => [x, y]);
    const low = Math.min(...values), span = Math.max(Math.max(...values) - low, 1e-9);
    const at = (value) => pad + ((value - low) / span) * (size - pad - right);
    const short = (value) => value.toFixed(Math.abs(value) < 10 ? 2 : 1);
    const drawing = make("svg", { viewBox: `0 0 ${size} ${size}`, class: "scatter", role: "img", "aria-label": `${data.metric} of every unit, A across and B up; on the line both are equal` });
    drawing.append(make("path", { class: "frame", d: `M${pad} ${right}V${size - pad}H${size - right}` }), make("path", { class: "equal", d: `M${pad} ${size - pad}L${size - right} ${right}` }));
    for (const value of [low, low + span]) {
      drawing.append(make("text", { x: at(value), y: size - pad + 14, "text-anchor": "middle" }, short(value)));
      drawing.append(make("text", { x: pad - 5, y: size - at(value) + 4, "text-anchor": "end" }, short(value)));
    }
    drawing.append(make("text", { class: "axis", x: size - right, y: size - 5, "text-anchor": "end" }, "A →"), make("text", { class: "axis", x: pad + 6, y: 20 }, "↑ B"));
    for (const [unit, x, y] of pairs) {
      const better = data.lower ? x < y : x > y;
      const tip = `${unit}: A ${x.toFixed(data.decimals)}, B ${y.toFixed(data.decimals)}`;
      drawing.append(make("circle", { class: x === y ? "even" : better ? "won-a" : "won-b", cx: at(x), cy: size - at(y), r: 4.5, "data-tip": tip }));
    }
    return drawing;
  };

  const differences = (data, pairs) => {
    const better = (x, y) => (data.lower ? x < y : x > y);
    const widest = Math.max(1e-9, ...pairs.map(([, x, y]) => Math.abs(x - y)));
    const rows = pairs.slice(0, MOST).map(([unit, x, y]) => {
      const width = (Math.abs(x - y) / widest) * 70;
      const drawing = make("svg", { viewBox: "0 0 150 14", preserveAspectRatio: "none", "aria-hidden": "true" },
        make("rect", { class: better(x, y) ? "won-a" : "won-b", x: x < y ? 75 - width : 75, y: 2, width, height: 10 }),
        make("line", { class: "zero", x1: 75, x2: 75, y1: 0, y2: 14 }));
      return make("tr", {}, make("th", { scope: "row" }, unit),
        ...[x.toFixed(data.decimals), y.toFixed(data.decimals), signed(x - y, data.decimals)].map((text) => make("td", { class: "number" }, text)),
        make("td", {}, drawing));
    });
    return table(`${data.metric} by unit`, [["Unit", ""], ["A", "number"], ["B", "number"], ["A − B", "number"], ["", ""]], rows);
  };

  const recipes = (a, b) => {
    const lines = [a, b].map((entry) => (one(".config", entry)?.textContent ?? "").split("\n").filter((line) => line.trim()));
    if (!lines[0].length || !lines[1].length) return [];
    const only = lines.map((mine, i) => mine.filter((line) => !lines[1 - i].includes(line)));
    if (!only[0].length && !only[1].length) return [make("p", { class: "muted" }, "The configurations are the same but for the order of their lines.")];
    const box = make("details", {}, make("summary", {}, `Configuration: lines only in A ${only[0].length}, only in B ${only[1].length}`));
    only.forEach((mine, i) => box.append(make("p", { class: "unseen" }, `Only in ${"AB"[i]}`), make("pre", { tabindex: "0", class: `only-${"ab"[i]}` }, mine.map((line) => `${"AB"[i]}  ${line}`).join("\n"))));
    return [box];
  };

  const compare = (box, data, i, j) => {
    const [a, b] = [i, j].map((k) => document.getElementById(data.rows[k].id));
    const pairs = data.units
      .map((unit, k) => [unit, data.rows[i].scores[k], data.rows[j].scores[k]])
      .filter(([, x, y]) => x !== null && y !== null)
      .sort((p, q) => Math.abs(q[1] - q[2]) - Math.abs(p[1] - p[2]));
    const better = (x, y) => (data.lower ? x < y : x > y);
    const wins = pairs.filter(([, x, y]) => better(x, y)).length;
    const losses = pairs.filter(([, x, y]) => better(y, x)).length;
    const mean = pairs.reduce((sum, [, x, y]) => sum + x - y, 0) / Math.max(1, pairs.length);
    const words = pairs.length
      ? `${data.metric}: A is better on ${wins}, B on ${losses} of ${pairs.length} units; mean difference ${signed(mean, data.decimals)}` +
        (pairs.length > MOST ? `. The ${MOST} largest differences are listed.` : ".")
      : "No unit was scored for both.";
    const scroll = (label, child) => make("div", { class: "scroll plain", role: "region", "aria-label": label, tabindex: "0" }, child);
    const parts = [make("p", {}, words)];
    if (pairs.length > 1) parts.push(make("div", { class: "pair" }, scatter(data, pairs), scroll("Units of A and B", differences(data, pairs))));
    parts.push(scroll("Metrics of A and B", metrics(a.parentElement, a, b)), ...recipes(a, b));
    one(".result", box).replaceChildren(...parts);
    one(".permalink", box).href = `#compare=${data.rows[i].id},${data.rows[j].id}`;
    return words;
  };

  const boxes = all(".compare").map((box) => {
    const data = JSON.parse(one("script", box).textContent);
    const [a, b] = [one("select.a", box), one("select.b", box)];
    const update = (aloud) => {
      const words = compare(box, data, Number(a.value), Number(b.value));
      if (aloud) one(".said", box).textContent = words;
    };
    for (const select of [a, b]) select.addEventListener("change", () => update(true));
    update(false);
    box.hidden = false;
    box.open = innerWidth >= 704;
    return { box, ids: data.rows.map((row) => row.id), a, b, update };
  });
  function openComparison(ids) {
    for (const { box, ids: own, a, b, update } of boxes) {
      const [i, j] = ids.map((id) => own.indexOf(id));
      if (!(i >= 0 && j >= 0)) continue;
      a.value = i; b.value = j;
      update(true);
      box.open = true;
      box.scrollIntoView({ block: "start" });
      box.focus({ preventScroll: true });
    }
  }

  // Two ticked rows of a table are its comparison.
  for (const { ids } of boxes) {
    const ticked = [];
    for (const id of ids) {
      const entry = document.getElementById(id);
      const box = make("input", { type: "checkbox" });
      box.addEventListener("change", () => {
        if (box.checked) ticked.push(id); else ticked.splice(ticked.indexOf(id), 1);
        if (ticked.length > 2) one(".pick input", document.getElementById(ticked.shift())).checked = false;
        if (box.checked && ticked.length === 2) {
          openComparison(ticked);
          history.replaceState(null, "", `#compare=${ticked.join(",")}`);
        }
      });
      one(".line", entry).append(make("label", { class: "pick" }, box, " compare", make("span", { class: "unseen" }, ` ${one(".name", entry).textContent}`)));
    }
  }

  addEventListener("hashchange", follow);
  follow();
})();
