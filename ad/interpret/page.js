"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8a8f94", "#a0522d"];
const DASHES = ["", "7 3", "2 2"];
const STEPS = "train steps"; // the axis of what is measured over training
const ORDERED = [STEPS, "episode", "stage", "position", "number"]; // axes of lines, the first ones before others
const CELL = /^\d+-\d+$/; // a label that is a cell: row-column
const MOST = { lines: 16, bars: 60, maps: 6, dots: 40, cells: 20000 };
const CHARACTER = 7.4; // width of one in a plot, in pixels
const SVG = ["svg", "g", "line", "path", "text", "rect", "circle"];
const tip = document.getElementById("tip");

function element(tag, attributes, ...children) {
  const node = SVG.includes(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const text = (value) => (value === null ? "–" : String(value));
const short = (value) => String(Number(value.toPrecision(2)));
const extent = (values) => values.reduce(([low, high], v) => (v === null ? [low, high] : [Math.min(low, v), Math.max(high, v)]), [Infinity, -Infinity]);
const color = (n) => ({ stroke: COLORS[n % COLORS.length], "stroke-dasharray": DASHES[Math.floor(n / COLORS.length) % DASHES.length] });
const range = (count) => [...Array(count).keys()];

function isOrdered([name, labels]) {
  const gaps = labels.slice(1).map((label, n) => label - labels[n]), numbers = labels.every((label) => typeof label === "number");
  return labels.length > 1 && (ORDERED.includes(name) || (numbers && gaps.every((gap) => gap > 0) && gaps.some((gap) => gap !== 1)));
}
const isCells = ([, labels]) => labels.filter((label) => CELL.test(label)).length > 3;

// Which plot shows an array, and which of its axes are its columns and its rows; one label of each other axis is chosen.
function layout(axes) {
  const size = (n) => axes[n][1].length, all = range(axes.length);
  const largest = (list) => list.reduce((best, n) => (best === null || size(n) > size(best) ? n : best), null);
  const cells = all.filter((n) => isCells(axes[n]));
  if (cells.length) {
    const column = cells.pop();
    return { kind: "map", column, row: largest(all.filter((n) => n !== column && size(n) <= MOST.maps)) };
  }
  const rank = (n) => (ORDERED.includes(axes[n][0]) ? ORDERED.indexOf(axes[n][0]) : ORDERED.length);
  const ordered = all.filter((n) => isOrdered(axes[n])).sort((a, b) => rank(a) - rank(b));
  if (ordered.length) {
    const column = ordered[0], others = all.filter((n) => n !== column);
    const row = largest(others.filter((n) => size(n) <= MOST.lines));
    if (row === null && others.length) return { kind: "heat", column, row: largest(others) };
    return { kind: "lines", column, row };
  }
  const column = all.length - 1;
  if (all.length < 2) return { kind: size(column) > MOST.bars ? "lines" : "bars", column, row: null };
  const row = size(column - 1) > 3 ? column - 1 : largest(all.slice(0, -1));
  if (size(row) * size(column) > MOST.cells) return { kind: "lines", column, row: null };
  const longest = (n) => Math.max(...axes[n][1].map((label) => String(label).length));
  return longest(column) > Math.max(20, longest(row)) ? { kind: "heat", column: row, row: column } : { kind: "heat", column, row };
}

const strides = (axes) => axes.map((_, n) => axes.slice(n + 1).reduce((product, [, labels]) => product * labels.length, 1));

// The number of the label of each axis that is chosen at first: the center of a map, else where the values differ most.
function firstLabels(array) {
  return array.axes.map((axis, n) => {
    if (isCells(axis)) return (axis[1].length - 1) >> 1;
    const stride = strides(array.axes)[n], spreads = axis[1].map(() => [Infinity, -Infinity]);
    array.values.forEach((v, place) => {
      const spread = spreads[Math.floor(place / stride) % axis[1].length];
      if (v !== null) spread.push(Math.min(spread[0], v), Math.max(spread[1], v)), spread.splice(0, 2);
    });
    const sizes = spreads.map(([low, high]) => high - low);
    return sizes.indexOf(Math.max(...sizes));
  });
}

// The numbers of an array along its rows and columns, at the labels that are chosen on the other axes.
function slice(array, state) {
  const steps = strides(array.axes);
  const start = array.axes.reduce((sum, _, n) => sum + (n === state.column || n === state.row ? 0 : steps[n] * state.at[n]), 0);
  const labels = (n) => (n === null ? [""] : array.axes[n][1]);
  const place = (row, column) => start + (state.row === null ? 0 : row * steps[state.row]) + column * steps[state.column];
  const of = (key) => (row, column) => (array[key] ? array[key][place(row, column)] : null);
  const found = { name: array.name, rows: labels(state.row), columns: labels(state.column), value: of("values"), low: of("low"), high: of("high") };
  found.said = (row, column) => text(found.value(row, column)) + (found.low(row, column) === null ? "" : ` [${text(found.low(row, column))}, ${text(found.high(row, column))}]`);
  found.rowName = state.row === null ? "" : array.axes[state.row][0];
  found.columnName = array.axes[state.column][0];
  found.all = found.rows.flatMap((_, r) => found.columns.map((_, c) => found.value(r, c)));
  found.tip = (row, column) => [[found.rowName, found.rows[row]], [found.columnName, found.columns[column]]].filter(([name]) => name).map((pair) => pair.join(" ")).join("\n") + `\n${found.said(row, column)}`;
  return found;
}

// The fill of a value: shades of one color from the lowest to the highest, or of two colors around zero.
function scale(values) {
  const [low, high] = extent(values);
  if (low < 0 && high > 0) {
    const most = Math.max(-low, high);
    const share = (v) => Math.abs(v) / most;
    return { share, fill: (v) => ({ fill: v < 0 ? "var(--minus)" : "var(--bar)", "fill-opacity": (0.04 + 0.96 * share(v)).toFixed(3) }), ends: [-most, most], strip: "linear-gradient(90deg, var(--minus), transparent, var(--bar))" };
  }
  const begin = low > 0 && low < 0.7 * high ? 0 : high < 0 && high > 0.7 * low ? 0 : low, end = high <= 0 && begin === 0 ? low : high;
  const share = (v) => (begin === end ? 0.5 : Math.abs((v - begin) / (end - begin)));
  const name = high <= 0 && begin === 0 ? "var(--minus)" : "var(--bar)";
  return { share, fill: (v) => ({ fill: name, "fill-opacity": (0.04 + 0.96 * share(v)).toFixed(3) }), ends: [begin, end], strip: `linear-gradient(90deg, transparent, ${name})` };
}

const scaleBar = ({ ends, strip }) => element("div", { class: "scale" }, short(ends[0]), element("i", { style: `background:${strip}` }), short(ends[1]));

const unknown = () => element("p", { class: "note" }, "No number is known.");

function ticks(low, high, count) {
  const raw = (high - low || 1) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((n) => n * power).find((s) => s >= raw);
  return range(2 * count + 2).map((n) => Number(((Math.ceil(low / step) + n) * step).toPrecision(12))).filter((v) => v <= high + step * 1e-9);
}

function textWidth(labels) {
  return Math.max(...labels.map((label) => String(label).length)) * CHARACTER;
}

function cut(label, width) {
  const most = Math.floor(width / CHARACTER);
  return String(label).length > most ? `${String(label).slice(0, most - 1)}…` : String(label);
}

function drawLines(shown, width, hidden) {
  const box = { left: 56, right: width - 14, top: 10, bottom: 262 };
  const numeric = shown.columns.every((label) => typeof label === "number");
  const xs = numeric ? shown.columns : range(shown.columns.length), [first, last] = extent(xs);
  const x = (n) => box.left + ((box.right - box.left) * (xs[n] - first)) / (last - first || 1);
  const visible = range(shown.rows.length).filter((row) => !hidden.has(row));
  const values = (visible.length ? visible : [0]).flatMap((r) => xs.flatMap((_, c) => [shown.value(r, c), shown.low(r, c), shown.high(r, c)]));
  let [low, high] = extent(values);
  if (!Number.isFinite(low)) return unknown();
  if (low > 0 && low < 0.5 * high) low = 0;
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  const y = (v) => box.bottom - ((box.bottom - box.top) * (v - low)) / (high - low);
  const svg = element("svg", { width, height: 312, role: "img", "aria-label": `lines over ${shown.columnName}` });
  for (const v of ticks(low, high, 5)) {
    svg.append(element("line", { x1: box.left, x2: box.right, y1: y(v), y2: y(v), stroke: v === 0 ? "var(--soft)" : "var(--line)" }));
    svg.append(element("text", { x: box.left - 7, y: y(v) + 4, "text-anchor": "end" }, text(v)));
  }
  const room = numeric ? 60 : Math.min(textWidth(shown.columns), 120) + 8, each = Math.ceil(xs.length / Math.max(1, Math.floor((box.right - box.left) / room)));
  const marks = numeric ? ticks(first, last, Math.max(2, Math.floor(width / 90))).filter((v) => Number.isInteger(v) || last - first < 5).map((v) => [v, box.left + ((box.right - box.left) * (v - first)) / (last - first || 1)]) : range(xs.length).filter((n) => n % each === 0).map((n) => [cut(shown.columns[n], 120), x(n)]);
  for (const [label, at] of marks) svg.append(element("text", { x: at, y: box.bottom + 17, "text-anchor": at > box.right - 30 ? "end" : at < box.left + 30 && !numeric ? "start" : "middle" }, text(label)));
  svg.append(element("text", { x: (box.left + box.right) / 2, y: box.bottom + 38, "text-anchor": "middle" }, shown.columnName));
  if (shown.columnName === STEPS) overTraining(svg, shown, box, x, xs, first, last);
  for (const row of visible) {
    const runs = [[]];
    xs.forEach((_, c) => (shown.value(row, c) === null ? runs.push([]) : runs[runs.length - 1].push(c)));
    const path = (list, of) => list.map((c) => `${x(c).toFixed(1)},${y(of(row, c)).toFixed(1)}`);
    for (const run of runs.filter((list) => list.length)) {
      const banded = run.filter((c) => shown.low(row, c) !== null);
      if (banded.length > 1) svg.append(element("path", { d: `M${[...path(banded, shown.low), ...path(banded, shown.high).reverse()].join("L")}Z`, fill: color(row).stroke, opacity: visible.length > 4 ? 0.07 : 0.16 }));
      svg.append(element("path", { d: `M${path(run, shown.value).join("L")}`, fill: "none", "stroke-width": 1.8, ...color(row) }));
      if (xs.length <= MOST.dots) run.forEach((c) => svg.append(element("circle", { cx: x(c), cy: y(shown.value(row, c)), r: 2.4, fill: color(row).stroke })));
    }
  }
  xs.forEach((_, c) => {
    const from = c ? (x(c - 1) + x(c)) / 2 : box.left, to = c + 1 < xs.length ? (x(c) + x(c + 1)) / 2 : box.right;
    const lines = visible.slice().sort((a, b) => shown.value(b, c) - shown.value(a, c)).map((r) => [shown.rows[r], shown.said(r, c)].filter((word) => word !== "").join("  "));
    svg.append(element("rect", { x: from, y: box.top, width: Math.max(1, to - from), height: box.bottom - box.top, fill: "transparent", "data-tip": [`${shown.columnName} ${shown.columns[c]}`, ...lines].join("\n") }));
  });
  return svg;
}

// The NAUC, on a scale of its own, and the train step at which in-context learning has appeared.
function overTraining(svg, shown, box, x, xs, first, last) {
  const nauc = data.over_training[0].arrays.find((array) => array.name === "nauc"), known = new Map(nauc.axes[0][1].map((step, n) => [step, nauc.values[n]]));
  const [low, high] = extent(nauc.values);
  const points = xs.map((step, n) => [x(n), known.get(step)]).filter(([, v]) => v !== null && v !== undefined);
  const path = points.map(([at, v]) => `${at.toFixed(1)},${(box.bottom - ((box.bottom - box.top) * (v - low)) / (high - low || 1)).toFixed(1)}`);
  if (path.length > 1 && shown.name !== nauc.name) svg.append(element("path", { d: `M${path.join("L")}`, fill: "none", stroke: "var(--soft)", "stroke-dasharray": "1 4", "stroke-width": 2 }));
  if (data.appeared === null || data.appeared < first || data.appeared > last) return;
  const at = box.left + ((box.right - box.left) * (data.appeared - first)) / (last - first || 1);
  svg.append(element("line", { x1: at, x2: at, y1: box.top, y2: box.bottom, stroke: "var(--soft)" }));
}

function drawBars(shown, width) {
  const left = Math.min(textWidth(shown.columns) + 10, 0.4 * width), right = width - 64, side = 24;
  let [low, high] = extent(shown.columns.flatMap((_, c) => [0, shown.value(0, c), shown.low(0, c), shown.high(0, c)]));
  if (low === high) high = low + 1;
  const x = (v) => left + ((right - left) * (v - low)) / (high - low);
  const svg = element("svg", { width, height: side * shown.columns.length + 4, role: "img", "aria-label": `bars by ${shown.columnName}` });
  shown.columns.forEach((label, c) => {
    const top = c * side + 3, value = shown.value(0, c), data_tip = { "data-tip": shown.tip(0, c) };
    svg.append(element("text", { x: left - 8, y: top + 14, "text-anchor": "end" }, cut(label, left - 8)));
    svg.append(element("text", { class: "on", x: right + 6, y: top + 14 }, text(value)));
    if (value === null) return;
    svg.append(element("rect", { x: Math.min(x(0), x(value)), y: top, width: Math.max(1, Math.abs(x(value) - x(0))), height: side - 6, fill: value < 0 ? "var(--minus)" : "var(--bar)", "fill-opacity": 0.75 }));
    if (shown.low(0, c) !== null) svg.append(element("line", { x1: x(shown.low(0, c)), x2: x(shown.high(0, c)), y1: top + 9, y2: top + 9, stroke: "var(--ink)", "stroke-width": 1.5 }));
    svg.append(element("rect", { x: left, y: top, width: right - left, height: side - 6, fill: "transparent", ...data_tip }));
  });
  svg.append(element("line", { x1: x(0), x2: x(0), y1: 0, y2: side * shown.columns.length, stroke: "var(--soft)" }));
  return svg;
}

function drawHeat(shown, width) {
  const colors = scale(shown.all), left = Math.min(textWidth(shown.rows) + 10, 0.42 * width);
  const cell = Math.min(90, Math.max(2.5, (width - left - 6) / shown.columns.length)), side = shown.rows.length > 40 ? Math.max(4, Math.min(24, 600 / shown.rows.length)) : 24;
  const isTurned = textWidth(shown.columns) + 6 > cell, top = isTurned ? Math.min(textWidth(shown.columns), 150) * 0.8 + 14 : 22;
  const most = Math.max(...colors.ends.map(Math.abs)) || 1, digits = Math.max(0, (most < 1 ? 1 : 2) - Math.floor(Math.log10(most)));
  const within = (value) => value.toFixed(digits).replace(/^-(0\.?0*)$/, "$1"), named = `${shown.rowName} (down), ${shown.columnName} (across)`;
  const wide = Math.max(left + cell * shown.columns.length + (isTurned ? 60 : 6), left + textWidth([named])), each = Math.ceil((isTurned ? 20 : 14) / cell);
  const svg = element("svg", { width: wide, height: top + side * shown.rows.length + 22, role: "img", "aria-label": `heat map of ${shown.rowName} by ${shown.columnName}` });
  shown.columns.forEach((label, c) => {
    if (c % each) return;
    const at = left + (c + 0.5) * cell, place = isTurned ? { transform: `translate(${at + 3} ${top - 6}) rotate(-53)` } : { x: at, y: top - 7, "text-anchor": "middle" };
    svg.append(element("text", place, isTurned ? cut(label, 150) : text(label)));
  });
  shown.rows.forEach((label, r) => {
    if (r % Math.ceil(13 / side) === 0) svg.append(element("text", { x: left - 8, y: top + (r + 0.5) * side + 4, "text-anchor": "end" }, cut(label, left - 8)));
    shown.columns.forEach((_, c) => {
      const value = shown.value(r, c), gap = cell > 8 && side > 8 ? 1 : 0;
      if (value === null) return;
      svg.append(element("rect", { x: left + c * cell, y: top + r * side, width: cell - gap, height: side - gap, ...colors.fill(value), "data-tip": shown.tip(r, c) }));
      if (cell >= 38 && side >= 20) svg.append(element("text", { class: "on", x: left + (c + 0.5) * cell, y: top + (r + 0.5) * side + 3, "text-anchor": "middle", "pointer-events": "none", ...(colors.share(value) > 0.6 ? { style: "fill:var(--card)" } : {}) }, within(value)));
    });
  });
  svg.append(element("text", { x: left, y: top + side * shown.rows.length + 17 }, named));
  return element("div", {}, element("div", { style: "overflow-x:auto" }, svg), scaleBar(colors));
}

function drawMaps(shown, width) {
  const cells = shown.columns.map((label, c) => [c, ...String(label).split("-").map(Number)]).filter(([c]) => CELL.test(shown.columns[c]));
  const rows = 1 + Math.max(...cells.map(([, row]) => row)), columns = 1 + Math.max(...cells.map(([, , column]) => column));
  const colors = scale(shown.rows.flatMap((_, r) => cells.map(([c]) => shown.value(r, c)))), side = Math.min(26, Math.max(4, Math.min(width, 300) / Math.max(rows, columns)));
  const maps = shown.rows.map((label, r) => {
    const svg = element("svg", { width: columns * side, height: rows * side, role: "img", "aria-label": `map of ${shown.columnName} ${label}` });
    for (const [c, row, column] of cells)
      if (shown.value(r, c) !== null) svg.append(element("rect", { x: column * side, y: row * side, width: side - 1, height: side - 1, ...colors.fill(shown.value(r, c)), "data-tip": shown.tip(r, c) }));
    return element("div", {}, svg, shown.rowName ? `${shown.rowName} ${label}` : "");
  });
  const others = shown.columns.length - cells.length;
  const rest = others ? [element("p", { class: "note" }, `Not on the map, since they are no cells: ${others} of the labels of ${shown.columnName}. They are in the table.`)] : [];
  return element("div", {}, element("div", { class: "maps" }, ...maps), scaleBar(colors), ...rest);
}

function drawTable(shown) {
  const head = element("tr", {}, element("th", {}, `${shown.columnName}${shown.rowName ? ` / ${shown.rowName}` : ""}`), ...shown.rows.map((label) => element("th", {}, text(label))));
  const body = shown.columns.map((label, c) => element("tr", {}, element("td", {}, text(label)), ...shown.rows.map((_, r) => element("td", {}, shown.said(r, c)))));
  return element("div", { class: "scroll" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...body)));
}

function select(title, labels, chosen, change) {
  const options = labels.map((label, n) => element("option", { value: n, ...(n === chosen ? { selected: "" } : {}) }, text(label)));
  const node = element("select", {}, ...options);
  node.addEventListener("change", () => change(Number(node.value)));
  return element("label", {}, `${title} `, node);
}

function legend(shown, hidden, redraw) {
  const buttons = shown.rows.map((label, row) => {
    const style = color(row), swatch = element("span", { class: "swatch", style: `border-color:${style.stroke};border-top-style:${style["stroke-dasharray"] ? "dashed" : "solid"}` });
    const button = element("button", { type: "button", "aria-pressed": String(!hidden.has(row)) }, swatch, text(label));
    button.addEventListener("click", () => (hidden.has(row) ? hidden.delete(row) : hidden.add(row), redraw()));
    return button;
  });
  return element("div", { class: "legend" }, ...buttons);
}

// The plot of an array, or its table, with the choices that it leaves to the reader.
function figure({ ...array }) {
  if (!array.axes.length) array.axes = [["value", [array.name]]];
  const box = element("figure"), state = { ...layout(array.axes), at: firstLabels(array), hidden: new Set() };
  const sizes = array.values.filter((v) => v).map(Math.abs).sort((a, b) => a - b);
  state.isTable = state.kind === "heat" && sizes.length > 1 && sizes[sizes.length - 1] > 1000 * sizes[sizes.length >> 1];
  const redraw = () => {
    const controls = [], shown = slice(array, state), width = Math.min(Math.max(box.clientWidth, 280), 1000);
    const toggle = element("button", { type: "button", "aria-pressed": String(state.isTable) }, "table");
    toggle.addEventListener("click", () => ((state.isTable = !state.isTable), redraw()));
    const others = range(array.axes.length).filter((n) => n !== state.column && (state.kind !== "map" || array.axes[n][1].length <= MOST.maps));
    if (others.length > 1) controls.push(select(state.kind === "lines" ? "a line for each" : "rows", others.map((n) => array.axes[n][0]), others.indexOf(state.row), (n) => ((state.row = others[n]), state.hidden.clear(), redraw())));
    array.axes.forEach(([name, labels], n) => {
      if (n !== state.column && n !== state.row && labels.length > 1) controls.push(select(name, labels, state.at[n], (k) => ((state.at[n] = k), redraw())));
    });
    const draw = { lines: drawLines, bars: drawBars, heat: drawHeat, map: drawMaps }[state.kind];
    const plot = () => (shown.all.every((v) => v === null) ? unknown() : draw(shown, width, state.hidden));
    const parts = [element("div", { class: "controls" }, ...controls, toggle), state.isTable ? drawTable(shown) : plot()];
    if (!state.isTable && state.kind === "lines" && shown.rows.length > 1) parts.push(legend(shown, state.hidden, redraw));
    box.replaceChildren(...parts);
  };
  let drawn = 0; // the width of the last plot
  box.fit = () => box.clientWidth && box.clientWidth !== drawn && ((drawn = box.clientWidth), redraw());
  new ResizeObserver(() => requestAnimationFrame(box.fit)).observe(box);
  return box;
}

function arrayNode(array, isOpen) {
  const count = array.axes.map(([name, labels]) => `${name} ${labels.length}`).join(" × ");
  const summary = element("summary", {}, element("b", {}, array.name), element("span", {}, ` ${array.about} (${count}${array.interval ? `; 95 % interval: ${array.interval}` : ""})`));
  const node = element("details", {}, summary);
  if (!array.values) {
    node.append(element("p", { class: "note" }, "Its numbers are in the npz file only: they are too many for this page."));
    return node;
  }
  node.append(figure(array));
  node.open = isOpen || location.hash === "#all";
  return node;
}

function table({ header, rows }) {
  const head = element("tr", {}, ...header.map((cell) => element("th", {}, cell)));
  const body = rows.map((row) => element("tr", {}, ...row.map((cell) => element("td", {}, cell))));
  return element("div", { class: "scroll" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...body)));
}

function sectionNode(entry, id, about, open) {
  const notes = about.map((sentence) => element("p", { class: "note" }, sentence));
  const title = element("h3", {}, entry.name), lead = element("p", { class: "lead" }, entry.title);
  const arrays = entry.arrays.map((array, n) => arrayNode(array, n < open));
  return element("section", { id }, title, lead, ...notes, element("p", { class: "note" }, `${entry.facts}.`), table(entry.table), ...arrays);
}

function build() {
  const root = document.getElementById("sections"), links = [];
  const add = (id, name, node) => (root.append(node), links.push(element("a", { href: `#${id}` }, name)));
  for (const entry of data.sections) add(entry.name, entry.name, sectionNode(entry, entry.name, entry.about, 1));
  if (data.over_training.length) {
    add("over-training", "over training", element("h2", { id: "over-training" }, "Over training"));
    root.append(element("p", { class: "lead" }, data.answer));
    root.append(element("p", { class: "note" }, "Dotted in plots over train steps: the NAUC on held-out tasks, on a scale of its own. Vertical: the train step at which in-context learning has appeared. A table shows the largest changes of one array: the first one with an interval, else the first one by heads."));
    data.over_training.forEach((entry, n) => add(`over-${entry.name}`, `${entry.name} over training`, sectionNode(entry, `over-${entry.name}`, n ? [] : entry.about, n ? 1 : 3)));
  }
  if (data.left_out.length) {
    const items = data.left_out.map((sentence) => element("li", {}, sentence));
    add("left-out", "left out", element("section", { id: "left-out" }, element("h3", {}, "Left out"), element("ul", {}, ...items)));
  }
  root.append(element("p", { class: "note" }, `config hash ${data.hash}`));
  document.getElementById("nav").append(...links);
}

document.addEventListener("pointermove", (event) => {
  const said = event.target instanceof Element && event.target.getAttribute("data-tip");
  tip.hidden = !said;
  if (!said) return;
  tip.textContent = said;
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${Math.max(4, Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8))}px`;
});
build();
document.querySelectorAll("details[open] figure").forEach((figure) => figure.fit());
