"use strict";
(() => {
  const make = (tag, props = {}, ...children) => {
    const e = Object.assign(document.createElement(tag), props);
    e.append(...children);
    return e;
  };
  const all = (q, of = document) => [...of.querySelectorAll(q)];
  const drawn = []; // what has to be drawn again when the theme changes

  // ---- tables sort by their headings
  const sort = (table, n, direction) => {
    const head = table.tHead.rows[0].cells[n];
    if (!head) return;
    const isNumber = head.classList.contains("n");
    const was = head.getAttribute("aria-sort");
    const down = direction ? direction === "descending" : was ? was === "ascending" : isNumber;
    const value = (row) => row.cells[n].dataset.v;
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === ""); // what is missing stays last
      const order = isNumber ? Number(x) - Number(y) : x.localeCompare(y, undefined, { numeric: true });
      return down ? -order : order;
    });
    for (const th of table.tHead.rows[0].cells) th.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    table.tBodies[0].append(...rows);
  };
  for (const table of all("details.table table"))
    [...table.tHead.rows[0].cells].forEach((th, n) =>
      th.firstElementChild.addEventListener("click", () => sort(table, n)));

  // ---- legends: point at an entry to see its line, press it to take the line away
  for (const legend of all(".legend")) {
    const panels = all(".panel", legend.parentElement);
    const parts = (of) => panels.flatMap((p) => {
      const at = p.dataset.lines.split(",").indexOf(of);
      return at < 0 ? [] : all(`[data-line="${at}"]`, p);
    });
    const every = panels.flatMap((p) => all("[data-line]", p));
    for (const button of all("button", legend)) {
      const mine = parts(button.dataset.of);
      const point = (on) => {
        for (const e of every) e.classList.toggle("dim", on && !mine.includes(e));
        for (const e of mine) e.classList.toggle("strong", on);
      };
      button.addEventListener("pointerenter", () => point(true));
      button.addEventListener("pointerleave", () => point(false));
      button.addEventListener("focus", () => point(button.matches(":focus-visible")));
      button.addEventListener("blur", () => point(false));
      button.addEventListener("click", () => {
        const shown = button.getAttribute("aria-pressed") === "false";
        button.setAttribute("aria-pressed", shown);
        for (const e of mine) e.classList.toggle("off", !shown);
      });
    }
  }

  const chooser = (label, names, chosen, onChange) => {
    const select = make("select", {}, ...names.map((n, k) => make("option", { value: k, textContent: n })));
    select.value = chosen;
    select.addEventListener("change", () => onChange(Number(select.value)));
    return make("label", {}, label, select);
  };

  // ---- cross-domain matrices of any two, and their difference
  const shown = (v, isSigned) => v === null ? "" :
    ((isSigned && v >= 0 ? "+" : "") + v.toFixed(2)).replace("-", "\u2212");
  const matrix = (d, title, values, isDiff) => {
    const head = make("tr", {}, make("th"), ...d.test.map((t) => make("th", { textContent: t, scope: "col" })));
    const known = values.flat().filter((v) => v !== null).map(Math.abs);
    const reach = Math.max(0.05, ...known);
    const rows = d.train.map((t, i) => make("tr", {}, make("th", { textContent: t, scope: "row" }),
      ...d.test.map((u, j) => {
        const v = values[i][j];
        const td = make("td", { textContent: shown(v, isDiff) });
        td.title = `trained on ${t}, tested on ${u}`;
        if (d.inside[i][j]) td.className = "inside";
        if (v !== null) {
          const share = isDiff ? Math.abs(v) / reach : Math.min(1, Math.max(0, (v - 0.5) * 2));
          const tone = isDiff ? (v < 0 ? "--minus" : "--plus") : "--heat";
          td.style.background = `color-mix(in oklab, var(${tone}) ${Math.round(share * 100)}%, var(--wash))`;
        }
        return td;
      })));
    return make("div", {}, make("h4", { textContent: title }),
      make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
  };
  const matrices = (stage, d) => {
    const grid = make("div", { className: "matrices" });
    const widest = `${4.6 + 2.9 * d.test.length}rem`; // a cell is never broken: the matrix scrolls
    grid.style.setProperty("--widest", widest);
    if (d.test.length > 6) grid.style.setProperty("--least", widest);
    const draw = () => {
      const [a, b] = [d.values[d.a], d.values[d.b]];
      const less = a.map((row, i) => row.map((v, j) => v === null || b[i][j] === null ? null : v - b[i][j]));
      grid.replaceChildren(matrix(d, d.names[d.a], a), ...(d.names.length > 1 ?
        [matrix(d, d.names[d.b], b), matrix(d, "the first less the second", less, true)] : []));
    };
    const controls = make("div", { className: "controls" });
    if (d.names.length > 1) controls.append(
      chooser("first", d.names, d.a, (k) => { d.a = k; draw(); }),
      chooser("second", d.names, d.b, (k) => { d.b = k; draw(); }));
    stage.replaceChildren(controls, grid);
    draw();
  };

  // ---- the map: a canvas, so that thousands of points stay light
  const tip = document.getElementById("tip");
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const SHAPES = [
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z", "M0-4.6L4.4 3.4H-4.4z", "M-3.6-3.6h7.2v7.2h-7.2z",
    "M0-5L4.2 0L0 5L-4.2 0z", "M0 4.6L4.4-3.4H-4.4z", "M-1.4-4.4h2.8v3h3v2.8h-3v3h-2.8v-3h-3v-2.8h3z",
    "M-3.2-4.4L0-1.3L3.2-4.4L4.4-3.2L1.3 0L4.4 3.2L3.2 4.4L0 1.3L-3.2 4.4L-4.4 3.2L-1.3 0L-4.4-3.2z",
    "M-4.6 0L3.4-4.4V4.4z", "M4.6 0L-3.4-4.4V4.4z", "M0-4.8L4.5-1.5L2.8 3.9H-2.8L-4.5-1.5z",
  ];
  const swatch = (k) => {
    const ns = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(ns, "svg");
    svg.setAttribute("viewBox", "-6 -6 12 12");
    const path = document.createElementNS(ns, "path");
    path.setAttribute("d", SHAPES[k % SHAPES.length]);
    path.setAttribute("fill", `var(--c${k % 6})`);
    svg.append(path);
    return svg;
  };
  const map = (stage, d) => {
    const SIZE = 880, PAD = 24;
    const canvas = make("canvas", { width: SIZE, height: Math.round(SIZE * 0.72) });
    canvas.setAttribute("role", "img");
    const classes = make("ul", { className: "classes" });
    const axes = make("p", { className: "note" });
    const state = { model: 0, by: "label", points: [] };
    const draw = () => {
      const g = canvas.getContext("2d"), m = d.models[state.model];
      const of = d[state.by], names = d[state.by + "s"];
      const paths = SHAPES.map((s) => new Path2D(s));
      const tones = [0, 1, 2, 3, 4, 5].map((k) => css(`--c${k}`));
      g.setTransform(1, 0, 0, 1, 0, 0);
      g.clearRect(0, 0, canvas.width, canvas.height);
      state.points = [];
      for (let k = 0; k < of.length; k++) {
        const x = m.xy[2 * k], y = m.xy[2 * k + 1];
        if (x === null) continue;
        const px = PAD + (x / 1000 + 1) / 2 * (canvas.width - 2 * PAD);
        const py = canvas.height - PAD - (y / 1000 + 1) / 2 * (canvas.height - 2 * PAD);
        g.setTransform(1.15, 0, 0, 1.15, px, py);
        g.globalAlpha = 0.7;
        g.fillStyle = tones[of[k] % 6];
        g.fill(paths[of[k] % SHAPES.length]);
        state.points.push([px, py, k]);
      }
      canvas.setAttribute("aria-label", `${m.name}, coloured by ${state.by}`);
      classes.replaceChildren(...names.map((n, k) => make("li", {}, swatch(k), n)));
      const [a, b] = m.shares.map((s) => (100 * s).toFixed(0) + "%");
      axes.textContent = `Across: ${a} of the variance; up: ${b}. ${state.points.length.toLocaleString("en")} annotations.`;
    };
    const over = (event) => {
      const box = canvas.getBoundingClientRect(), scale = canvas.width / box.width;
      const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
      let best = null, least = (16 * scale) ** 2;
      for (const p of state.points) {
        const far = (p[0] - x) ** 2 + (p[1] - y) ** 2;
        if (far < least) [best, least] = [p, far];
      }
      tip.hidden = best === null;
      if (best === null) return;
      const k = best[2], t = d.thumb * 2;
      tip.replaceChildren();
      if (d.has[k]) {
        const i = make("i");
        Object.assign(i.style, { width: `${t}px`, height: `${t}px`, backgroundImage: `url(${d.sheet})`,
          backgroundSize: `${t * d.columns}px auto`,
          backgroundPosition: `${-(k % d.columns) * t}px ${-Math.floor(k / d.columns) * t}px` });
        tip.append(i);
      }
      for (const line of [d.labels[d.label[k]], d.domains[d.domain[k]], d.ids[k]])
        tip.append(make("div", { textContent: line }));
      const w = tip.offsetWidth, h = tip.offsetHeight;
      tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - w - 4))}px`;
      tip.style.top = `${event.clientY + 14 + h > innerHeight ? Math.max(4, event.clientY - 14 - h) : event.clientY + 14}px`;
    };
    canvas.addEventListener("pointermove", over);
    canvas.addEventListener("pointerdown", over);
    canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
    stage.replaceChildren(make("div", { className: "controls" },
      chooser("model", d.models.map((m) => m.name), 0, (k) => { state.model = k; draw(); }),
      chooser("colour by", ["label", "domain"], 0, (k) => { state.by = ["label", "domain"][k]; draw(); })),
    classes, canvas, axes);
    drawn.push(draw);
    draw();
  };
  for (const widget of all(".widget")) {
    const data = JSON.parse(widget.querySelector('script[type="application/json"]').textContent);
    ({ matrices, map })[widget.dataset.kind](widget.querySelector(".stage"), data);
  }

  // ---- light and dark
  const root = document.documentElement, button = document.getElementById("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
  const themed = () => { button.textContent = isDark() ? "light" : "dark"; drawn.forEach((f) => f()); };
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; themed(); });
  dark.addEventListener("change", themed);
  matchMedia("print").addEventListener("change", () => drawn.forEach((f) => f()));
  addEventListener("beforeprint", () => all("details").forEach((d) => { d.open = true; }));

  // ---- addresses: #sort=table2:3 or #sort=table2:3:ascending, #theme=dark, joined by &
  const follow = () => {
    for (const part of location.hash.slice(1).split("&")) {
      const [key, value] = part.split("=");
      if (key === "theme" && value) root.dataset.theme = value;
      if (key === "sort" && value) {
        const [id, column, direction] = value.split(":");
        const table = document.getElementById(id);
        if (table && table.tHead) sort(table, Number(column) - 1, direction);
      }
    }
    themed();
  };
  addEventListener("hashchange", follow);
  follow();
})();
