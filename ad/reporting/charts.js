"use strict";
// Charts as SVG, for every page: reports, sweeps, the inspection page and the app. Colors and fonts come from page.css, which
// every page that loads this file includes. No page computes a statistic: intervals arrive as `low` and `high`.
//
// chart(spec) returns a <figure>, which draws itself again when its width changes, and by its function redraw() after its arrays changed. The fields of a spec, all but the first four optional:
//   kind     "lines" (over ordered columns), "columns" (upright bars over ordered columns), "bars" and "points" (a row of the
//            picture for each column), "heat" (a cell for each row and column), "map" (a grid for each row; columns are "row-column")
//   columns  labels, numbers or text: the x axis, the bars, or the cells
//   rows     labels: the series of the legend, the rows of a heat map, or the maps; [""] for a single series
//   values   numbers by row and column, null for unknown; `low` and `high` of the same shape are intervals
//   title, column_name, row_name, value_name   texts of the heading, the axes and the tips
//   digits   decimals of a number (else four significant digits)
//   domain   [low, high] of the value axis or of the colors (else from the values)
//   styles   for each row {color: 0 to 7, dash: 0 to 3, width}; the default follows the order of the rows
//   marks    [[at, text]]: lines across the column axis (lines, columns) or across the value axis (bars, points)
//   overlay  {name, values}: a dotted line over the columns, on a scale of its own (lines)
//   framed   labels of columns whose cells have a frame, which `framed_name` names in the legend (map)
//   hidden   a Set of the numbers of the rows that are not drawn at first; the legend changes it (lines, columns, points)
// numbers(spec) returns a <table> of the same values, and table(header, rows) any other.
// element(tag, attributes, ...children) makes a node, also of SVG; `class`, `style` and `data-*` are attributes like others.
// An element with the attribute data-tip shows that text under the pointer.
// mount(root) replaces <figure data-chart="N"> by chart N of <script type="application/json" id="charts">, and makes
// <select data-choice="ID"> show one of the children of #ID.

const SVG = new Set(["svg", "g", "line", "path", "text", "rect", "circle"]);
const DASHES = ["", "7 3", "2 3", "8 3 2 3"];
const NUM_COLORS = 8;
const CHARACTER = 7; // width of one at 12 px, in pixels
const CELL = /^\d+-\d+$/; // a label that is a cell: row-column
const MAX_DOTS = 40; // columns, beyond which a line has no dot at each of them

function element(tag, attributes, ...children) {
  const node = SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const range = (count) => [...Array(count).keys()];
const isNumber = (value) => value !== null && value !== undefined;
const extent = (values) => values.filter(isNumber).reduce(([low, high], v) => [Math.min(low, v), Math.max(high, v)], [Infinity, -Infinity]);
const textWidth = (labels) => Math.max(0, ...labels.map((label) => String(label).length)) * CHARACTER;
const known = (spec, name, row, column) => (spec[name] ? spec[name][row][column] : null);

function cut(label, width) {
  const most = Math.max(2, Math.floor(width / CHARACTER));
  return String(label).length > most ? `${String(label).slice(0, most - 1)}…` : String(label);
}

// The text of a value, with its interval.
function textOf(value, digits) {
  if (!isNumber(value)) return "–";
  if (typeof value !== "number") return String(value);
  return (digits === undefined || digits === null ? String(Number(value.toPrecision(4))) : value.toFixed(digits)).replace("-", "−");
}

function cellText(spec, row, column) {
  const [value, low, high] = ["values", "low", "high"].map((name) => known(spec, name, row, column));
  const [text, from, to] = [value, low, high].map((v) => textOf(v, spec.digits));
  return isNumber(low) && isNumber(high) ? `${text} [${from}, ${to}]` : text;
}

function cellTip(spec, row, column) {
  const names = [[spec.row_name, spec.rows[row]], [spec.column_name, spec.columns[column]]].map((pair) => pair.filter((word) => isNumber(word) && word !== "").join(" "));
  return [...names.filter(Boolean), `${spec.value_name || ""} ${cellText(spec, row, column)}`.trim()].join("\n");
}

function styleOf(spec, row) {
  const own = spec.styles ? spec.styles[row] : { color: row % NUM_COLORS, dash: Math.floor(row / NUM_COLORS) % DASHES.length };
  const dash = DASHES[own.dash || 0];
  return { stroke: `var(--c${own.color})`, "stroke-width": own.width || 2, ...(dash ? { "stroke-dasharray": dash } : {}) };
}

// Round values from low to high, about `count` of them.
function ticks(low, high, count) {
  const raw = (high - low || 1) / Math.max(1, count), power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((n) => n * power).find((s) => s >= raw * 0.999);
  return range(2 * count + 3).map((n) => Number(((Math.ceil(low / step - 1e-9) + n) * step).toPrecision(12))).filter((v) => v <= high + step * 1e-9);
}

// The ends of the value axis: the domain, else the extent of what is drawn, with 0 where it is near or bars begin there.
function valueEnds(spec, rows, fromZero) {
  if (spec.domain) return spec.domain;
  const drawn = ["values", "low", "high"].filter((name) => spec[name]).flatMap((name) => rows.flatMap((row) => spec[name][row]));
  let [low, high] = extent(drawn);
  if (!Number.isFinite(low)) return null;
  if (fromZero || (low > 0 && low < 0.5 * high)) low = Math.min(low, 0);
  if (fromZero) high = Math.max(high, 0);
  return low === high ? [low - 0.5, high + 0.5] : [low, high];
}

const unknown = () => element("p", { class: "note" }, "No number is known.");

// Lines or upright bars over ordered columns.
function drawOver(spec, width) {
  const rows = range(spec.rows.length).filter((row) => !spec.hidden.has(row)), isBars = spec.kind === "columns";
  const ends = valueEnds(spec, rows.length ? rows : [0], isBars);
  if (!ends) return unknown();
  const [low, high] = ends, yTicks = ticks(low, high, 5);
  const box = { left: textWidth(yTicks.map((v) => textOf(v))) + 14, right: width - 12, top: spec.value_name ? 26 : 10, bottom: 262 };
  const isNumeric = spec.columns.every((label) => typeof label === "number");
  const xs = isNumeric ? spec.columns : range(spec.columns.length), gap = isBars ? 0.5 * (xs.length > 1 ? xs[1] - xs[0] : 1) : 0;
  const first = Math.min(...xs) - gap, last = Math.max(...xs) + gap;
  const at = (v) => (last === first ? (box.left + box.right) / 2 : box.left + ((box.right - box.left) * (v - first)) / (last - first));
  const x = (column) => at(xs[column]), y = (v) => box.bottom - ((box.bottom - box.top) * (Math.min(Math.max(v, low), high) - low)) / (high - low);
  const svg = element("svg", { width, height: 308, role: "img", "aria-label": spec.title || spec.value_name || "chart" });
  if (spec.value_name) svg.append(element("text", { x: 0, y: 12 }, cut(spec.value_name, width)));
  for (const v of yTicks) {
    svg.append(element("line", { x1: box.left, x2: box.right, y1: y(v), y2: y(v), stroke: v === 0 ? "var(--soft)" : "var(--line)" }));
    svg.append(element("text", { x: box.left - 7, y: y(v) + 4, "text-anchor": "end" }, textOf(v)));
  }
  for (const [label, position] of columnMarks(spec, isNumeric, x, at, box)) {
    const anchor = position > box.right - 24 ? "end" : position < box.left + 8 ? "start" : "middle";
    svg.append(element("text", { x: position, y: box.bottom + 17, "text-anchor": anchor }, label));
  }
  svg.append(element("text", { x: (box.left + box.right) / 2, y: box.bottom + 38, "text-anchor": "middle" }, cut(spec.column_name || "", width)));
  for (const [where, text] of spec.marks || []) {
    const position = at(isNumeric ? where : spec.columns.indexOf(where));
    svg.append(element("line", { x1: position, x2: position, y1: box.top, y2: box.bottom, stroke: "var(--soft)", "data-tip": text }));
  }
  if (spec.overlay) svg.append(overlay(spec, x, box));
  if (isBars) drawUpright(svg, spec, rows, x, y, Math.max(1, at(xs[0] + gap) - at(xs[0] - gap)));
  else for (const row of rows) svg.append(...series(spec, row, x, y, rows.length));
  spec.columns.forEach((label, column) => {
    const from = column ? (x(column - 1) + x(column)) / 2 : box.left, to = column + 1 < xs.length ? (x(column) + x(column + 1)) / 2 : box.right;
    const ordered = rows.slice().sort((a, b) => spec.values[b][column] - spec.values[a][column]);
    const lines = ordered.filter((row) => isNumber(spec.values[row][column])).map((row) => `${spec.rows[row]}  ${cellText(spec, row, column)}`.trim());
    const tip = [`${spec.column_name || ""} ${textOf(label)}`.trim(), ...lines].join("\n");
    svg.append(element("rect", { x: Math.min(from, to), y: box.top, width: Math.max(1, Math.abs(to - from)), height: box.bottom - box.top, fill: "transparent", "data-tip": tip }));
  });
  return svg;
}

// [text, position] of the labels under the x axis: round numbers, or as many labels as fit.
function columnMarks(spec, isNumeric, x, at, box) {
  const width = box.right - box.left;
  if (isNumeric) {
    const [first, last] = extent(spec.columns), isWhole = spec.columns.every(Number.isInteger);
    const found = ticks(first, last, Math.max(2, Math.floor(width / 80))).filter((v) => !isWhole || Number.isInteger(v));
    const marks = isWhole && first === 1 ? [1, ...found.filter((v) => v > 1 && at(v) - at(1) > 30)] : found;
    return marks.map((v) => [textOf(v), at(v)]);
  }
  const room = Math.min(textWidth(spec.columns), 120) + 8, each = Math.ceil(spec.columns.length / Math.max(1, Math.floor(width / room)));
  return range(spec.columns.length).filter((n) => n % each === 0).map((n) => [cut(spec.columns[n], 120), x(n)]);
}

// The nodes of one line: its band, the line itself, which is broken where a value is unknown, and dots.
function series(spec, row, x, y, count) {
  const style = styleOf(spec, row), nodes = [], runs = [[]];
  spec.columns.forEach((_, column) => (isNumber(spec.values[row][column]) ? runs.at(-1).push(column) : runs.push([])));
  const path = (list, name) => list.map((column) => `${x(column).toFixed(1)},${y(spec[name][row][column]).toFixed(1)}`);
  for (const run of runs.filter((list) => list.length)) {
    const banded = run.filter((column) => isNumber(known(spec, "low", row, column)) && isNumber(known(spec, "high", row, column)));
    if (banded.length > 1) nodes.push(element("path", { d: `M${[...path(banded, "low"), ...path(banded, "high").reverse()].join("L")}Z`, fill: style.stroke, opacity: count > 4 ? 0.12 : 0.18 }));
    nodes.push(element("path", { d: `M${path(run, "values").join("L")}`, fill: "none", ...style }));
    if (run.length === 1 || spec.columns.length <= MAX_DOTS)
      for (const column of run) nodes.push(element("circle", { cx: x(column), cy: y(spec.values[row][column]), r: 2.6, fill: style.stroke }));
  }
  return nodes;
}

function overlay(spec, x, box) {
  const points = spec.overlay.values.map((v, column) => [x(column), v]).filter(([, v]) => isNumber(v)), [low, high] = extent(points.map(([, v]) => v));
  const path = points.map(([at, v]) => `${at.toFixed(1)},${(box.bottom - ((box.bottom - box.top) * (v - low)) / (high - low || 1)).toFixed(1)}`);
  return element("path", { d: path.length ? `M${path.join("L")}` : "", fill: "none", stroke: "var(--soft)", "stroke-dasharray": "1 4", "stroke-width": 2 });
}

function drawUpright(svg, spec, rows, x, y, side) {
  const own = (0.9 * side) / Math.max(1, rows.length);
  rows.forEach((row, n) => spec.values[row].forEach((value, column) => {
    if (!isNumber(value)) return;
    const left = x(column) - 0.45 * side + n * own, [low, high] = ["low", "high"].map((name) => known(spec, name, row, column));
    svg.append(element("rect", { x: left, y: Math.min(y(0), y(value)), width: Math.max(1, own), height: Math.abs(y(value) - y(0)), fill: styleOf(spec, row).stroke, "fill-opacity": 0.85 }));
    if (isNumber(low) && isNumber(high)) svg.append(element("line", { x1: left + own / 2, x2: left + own / 2, y1: y(low), y2: y(high), stroke: "var(--ink)" }));
  }));
}

// Bars from 0, or points, with intervals: a line of the picture for each column, and in it one mark for each row.
function drawAcross(spec, width) {
  const isBars = spec.kind === "bars", rows = range(spec.rows.length).filter((row) => !spec.hidden.has(row));
  const ends = valueEnds(spec, rows.length ? rows : [0], isBars);
  if (!ends) return unknown();
  const [low, high] = ends, side = Math.max(24, 13 * rows.length + 8), isSingle = rows.length === 1;
  const texts = isSingle ? spec.columns.map((_, column) => textOf(spec.values[rows[0]][column], spec.digits)) : [];
  const left = Math.min(textWidth(spec.columns) + 14, 0.45 * width), right = width - Math.max(14, textWidth(texts) + 12), bottom = side * spec.columns.length + 4;
  const x = (v) => left + ((right - left) * (Math.min(Math.max(v, low), high) - low)) / (high - low);
  const svg = element("svg", { width, height: bottom + (spec.value_name ? 42 : 22), role: "img", "aria-label": spec.title || spec.value_name || "chart" });
  for (const v of ticks(low, high, Math.max(2, Math.floor((right - left) / 70)))) {
    svg.append(element("line", { x1: x(v), x2: x(v), y1: 0, y2: bottom, stroke: v === 0 ? "var(--soft)" : "var(--line)" }));
    svg.append(element("text", { x: x(v), y: bottom + 16, "text-anchor": "middle" }, textOf(v)));
  }
  for (const [v, text] of spec.marks || []) svg.append(element("line", { x1: x(v), x2: x(v), y1: 0, y2: bottom, stroke: "var(--ink)", "stroke-dasharray": "4 3", "data-tip": text }));
  spec.columns.forEach((label, column) => {
    const top = column * side + 3;
    svg.append(element("text", { x: left - 8, y: top + side / 2, "text-anchor": "end" }, cut(label, left - 8)));
    if (isSingle) svg.append(element("text", { class: "on", x: right + 6, y: top + side / 2 }, texts[column]));
    rows.forEach((row, n) => {
      const value = spec.values[row][column], middle = top + ((side - 6) * (n + 0.5)) / rows.length, style = styleOf(spec, row);
      const [from, to] = ["low", "high"].map((name) => known(spec, name, row, column));
      if (!isNumber(value)) return;
      const half = isBars ? Math.max(3, (side - 8) / rows.length / 2) : 0;
      if (isBars) svg.append(element("rect", { x: Math.min(x(0), x(value)), y: middle - half, width: Math.max(1, Math.abs(x(value) - x(0))), height: 2 * half, fill: value < 0 && isSingle ? "var(--minus)" : style.stroke, "fill-opacity": 0.75 }));
      if (isNumber(from) && isNumber(to)) svg.append(element("line", { x1: x(from), x2: x(to), y1: middle, y2: middle, stroke: isBars ? "var(--ink)" : style.stroke, "stroke-width": 2 }));
      if (!isBars) svg.append(element("circle", { cx: x(value), cy: middle, r: 4, fill: style.stroke }));
    });
    const lines = rows.map((row) => `${spec.rows[row]}  ${cellText(spec, row, column)}`.trim());
    svg.append(element("rect", { x: 0, y: top - 3, width, height: side, fill: "transparent", "data-tip": [label, ...lines].join("\n") }));
  });
  if (spec.value_name) svg.append(element("text", { x: width / 2, y: bottom + 36, "text-anchor": "middle" }, cut(spec.value_name, width)));
  return svg;
}

// The fill of a value: shades of one color between the ends, or of two colors around zero.
function scale(values, domain) {
  const [low, high] = domain || extent(values), fill = (color, share) => ({ fill: color, "fill-opacity": (0.05 + 0.95 * share).toFixed(3) });
  if (low < 0 && high > 0) {
    const most = Math.max(-low, high), share = (v) => Math.min(1, Math.abs(v) / most);
    return { share, fill: (v) => fill(v < 0 ? "var(--minus)" : "var(--c0)", share(v)), ends: [-most, most], strip: "linear-gradient(90deg, var(--minus), transparent, var(--c0))" };
  }
  const isNegative = high <= 0 && low < 0, begin = domain ? low : low > 0 && low < 0.7 * high ? 0 : isNegative && high > 0.7 * low ? 0 : low, end = !domain && isNegative && begin === 0 ? low : high;
  const share = (v) => (begin === end ? 0.5 : Math.min(1, Math.max(0, (v - begin) / (end - begin))));
  const color = isNegative && begin === 0 ? "var(--minus)" : "var(--c0)";
  return { share, fill: (v) => fill(color, share(v)), ends: [begin, end], strip: `linear-gradient(90deg, transparent, ${color})` };
}

function scaleBar({ ends, strip }) {
  const bar = element("i"), [low, high] = ends.map((end) => textOf(Number(end.toPrecision(3))));
  bar.style.background = strip; // an attribute "style" would be refused by the app's policy
  return element("div", { class: "scale" }, low, bar, high);
}

function drawHeat(spec, width) {
  const all = spec.values.flat();
  if (!all.some(isNumber)) return unknown();
  const colors = scale(all, spec.domain), left = Math.min(textWidth(spec.rows) + 12, 0.42 * width);
  const cell = Math.min(90, Math.max(2.5, (width - left - 6) / spec.columns.length)), side = spec.rows.length > 40 ? Math.max(4, Math.min(24, 600 / spec.rows.length)) : 24;
  const isTurned = textWidth(spec.columns) + 6 > cell, top = isTurned ? Math.min(textWidth(spec.columns), 150) * 0.8 + 14 : 22;
  const most = Math.max(...colors.ends.map(Math.abs)) || 1, digits = spec.digits ?? Math.max(0, (most < 1 ? 1 : 2) - Math.floor(Math.log10(most)));
  const within = (value) => value.toFixed(digits).replace(/^-(0\.?0*)$/, "$1").replace("-", "−");
  const names = [spec.row_name && `${spec.row_name} (down)`, spec.column_name && `${spec.column_name} (across)`].filter(Boolean).join(", ");
  const wide = Math.max(left + cell * spec.columns.length + (isTurned ? 60 : 6), textWidth([names])), each = Math.ceil((isTurned ? 20 : 14) / cell);
  const svg = element("svg", { width: wide, height: top + side * spec.rows.length + 22, role: "img", "aria-label": spec.title || names });
  spec.columns.forEach((label, column) => {
    if (column % each) return;
    const x = left + (column + 0.5) * cell, turned = { x, y: top - 6, transform: `rotate(-52 ${x} ${top - 6})` };
    svg.append(element("text", isTurned ? turned : { x, y: top - 7, "text-anchor": "middle" }, isTurned ? cut(label, 150) : textOf(label)));
  });
  spec.rows.forEach((label, row) => {
    if (row % Math.ceil(13 / side) === 0) svg.append(element("text", { x: left - 8, y: top + (row + 0.5) * side + 4, "text-anchor": "end" }, cut(label, left - 8)));
    spec.columns.forEach((_, column) => {
      const value = spec.values[row][column], gap = cell > 8 && side > 8 ? 1 : 0, isDark = isNumber(value) && colors.share(value) > 0.6;
      if (!isNumber(value)) return;
      svg.append(element("rect", { x: left + column * cell, y: top + row * side, width: cell - gap, height: side - gap, ...colors.fill(value), "data-tip": cellTip(spec, row, column) }));
      if (cell >= 38 && side >= 20) svg.append(element("text", { class: isDark ? "on dark" : "on", x: left + (column + 0.5) * cell, y: top + (row + 0.5) * side + 3, "text-anchor": "middle" }, within(value)));
    });
  });
  svg.append(element("text", { x: 0, y: top + side * spec.rows.length + 17 }, names));
  return element("div", {}, element("div", { class: "scroll" }, svg), scaleBar(colors));
}

// A grid for each row, in whose cells the values of the columns stand.
function drawMaps(spec, width) {
  const cells = spec.columns.map((label, column) => [column, ...String(label).split("-").map(Number)]).filter(([column]) => CELL.test(spec.columns[column]));
  const values = spec.values.flatMap((own) => cells.map(([column]) => own[column]));
  if (!values.some(isNumber)) return unknown();
  const height = 1 + Math.max(...cells.map(([, row]) => row)), across = 1 + Math.max(...cells.map(([, , column]) => column));
  const colors = scale(values, spec.domain), side = Math.min(40, Math.max(4, Math.floor(Math.min(width - 2, spec.rows.length > 1 ? 300 : 400) / Math.max(height, across))));
  const framed = new Set(spec.framed || []), digits = spec.digits ?? 2;
  const maps = spec.rows.map((name, row) => {
    const svg = element("svg", { class: "map", width: across * side + 2, height: height * side + 2, role: "img", "aria-label": `map of ${spec.title || spec.column_name} ${name}` });
    for (const [column, y, x] of cells) {
      const value = spec.values[row][column], square = { x: x * side + 1, y: y * side + 1, width: side - 1, height: side - 1 };
      const fill = isNumber(value) ? colors.fill(value) : { fill: "none", stroke: "var(--line)" };
      svg.append(element("rect", { ...square, ...fill, "data-tip": cellTip(spec, row, column) }));
      if (isNumber(value) && side >= 26) svg.append(element("text", { class: colors.share(value) > 0.6 ? "on dark" : "on", x: (x + 0.5) * side + 1, y: (y + 0.5) * side + 5, "text-anchor": "middle" }, textOf(value, digits).replace(/^0\./, ".")));
      if (framed.has(spec.columns[column])) svg.append(element("rect", { x: square.x + 1, y: square.y + 1, width: side - 3, height: side - 3, class: "frame" }));
    }
    return element("div", {}, svg, [spec.row_name, name].filter(Boolean).join(" "));
  });
  const others = spec.columns.length - cells.length;
  const rest = others ? [element("p", { class: "note" }, `${others} of the labels of ${spec.column_name} are no cells and stand in the table only.`)] : [];
  const frame = framed.size ? [element("span", { class: "framed" }, element("i"), spec.framed_name || "")] : [];
  return element("div", {}, element("div", { class: "maps" }, ...maps), element("div", { class: "legend" }, scaleBar(colors), ...frame), ...rest);
}

const DRAW = { lines: drawOver, columns: drawOver, bars: drawAcross, points: drawAcross, heat: drawHeat, map: drawMaps };

function legend(spec, redraw) {
  const buttons = spec.rows.map((label, row) => {
    const sample = element("svg", { width: 26, height: 10 }, element("line", { x1: 0, x2: 26, y1: 5, y2: 5, ...styleOf(spec, row) }));
    const button = element("button", { type: "button", "aria-pressed": String(!spec.hidden.has(row)) }, sample, String(label));
    button.addEventListener("click", () => (spec.hidden.has(row) ? spec.hidden.delete(row) : spec.hidden.add(row), redraw()));
    return button;
  });
  return element("div", { class: "legend" }, ...buttons);
}

function chart(given) {
  const spec = { rows: [""], hidden: new Set(), ...given }, box = element("figure", { class: "chart" }), draw = DRAW[spec.kind];
  const hasLegend = spec.rows.length > 1 && spec.kind !== "heat" && spec.kind !== "map";
  let drawn = 0; // the width of the last drawing
  const redraw = () => {
    const title = spec.title ? [element("figcaption", {}, spec.title)] : [];
    box.replaceChildren(...title, draw(spec, Math.min(Math.max(drawn, 240), 1000)), ...(hasLegend ? [legend(spec, redraw)] : []));
  };
  box.redraw = () => drawn && redraw();
  box.fit = () => box.clientWidth && box.clientWidth !== drawn && ((drawn = box.clientWidth), redraw());
  new ResizeObserver(() => requestAnimationFrame(box.fit)).observe(box);
  return box;
}

function table(header, rows) {
  const line = (tag, cells) => element("tr", {}, ...cells.map((cell) => (cell instanceof Node ? cell : element(tag, {}, textOf(cell)))));
  const body = rows.map((cells) => line("td", cells));
  return element("div", { class: "scroll" }, element("table", {}, element("thead", {}, line("th", header)), element("tbody", {}, ...body)));
}

function numbers(spec) {
  const rows = spec.rows || [""], corner = [spec.column_name, spec.row_name].filter(Boolean).join(" / ");
  return table([corner, ...rows.map(String)], spec.columns.map((label, column) => [label, ...rows.map((_, row) => cellText(spec, row, column))]));
}

function showTips() {
  const tip = element("div", { id: "tip", hidden: "" });
  const show = (event) => {
    const holder = event.target instanceof Element && event.target.closest("[data-tip]");
    tip.hidden = !holder;
    if (!holder) return;
    tip.textContent = holder.getAttribute("data-tip");
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${Math.max(4, Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8))}px`;
  };
  document.body.append(tip);
  for (const name of ["pointermove", "pointerdown"]) document.addEventListener(name, show);
}

function mount(root) {
  const source = document.getElementById("charts"), specs = source ? JSON.parse(source.textContent) : [];
  for (const place of root.querySelectorAll("figure[data-chart]")) place.replaceWith(chart(specs[place.dataset.chart]));
  for (const choice of root.querySelectorAll("select[data-choice]")) {
    const parts = [...document.getElementById(choice.dataset.choice).children];
    const show = () => parts.forEach((part, n) => (part.hidden = n !== choice.selectedIndex));
    choice.addEventListener("change", show);
    show();
  }
}

document.addEventListener("DOMContentLoaded", () => (showTips(), mount(document)));
