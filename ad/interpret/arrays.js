// Figures of arrays with named axes, for the page of the analyses and the app: which chart shows an array. charts.js draws.

const STEPS = "train steps"; // the axis over training
const ORDERED = [STEPS, "episode", "stage", "position", "number"]; // axes of lines, the first ones before others
const MOST = { lines: 16, bars: 60, maps: 6, cells: 20000 };

function isOrdered([name, labels]) {
  const gaps = labels.slice(1).map((label, n) => label - labels[n]), isNumeric = labels.every((label) => typeof label === "number");
  return labels.length > 1 && (ORDERED.includes(name) || (isNumeric && gaps.every((gap) => gap > 0) && gaps.some((gap) => gap !== 1)));
}
const isCells = ([, labels]) => labels.filter((label) => CELL.test(label)).length > 3;

// Which chart shows an array, and which of its axes are its columns and its rows; one label of each other axis is chosen.
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
    const column = ordered[0], others = all.filter((n) => n !== column), row = largest(others.filter((n) => size(n) <= MOST.lines));
    return row === null && others.length ? { kind: "heat", column, row: largest(others) } : { kind: "lines", column, row };
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
    const stride = strides(array.axes)[n], groups = axis[1].map(() => []);
    array.values.forEach((value, place) => groups[Math.floor(place / stride) % axis[1].length].push(value));
    const spreads = groups.map(extent).map(([low, high]) => high - low);
    return spreads.indexOf(Math.max(...spreads));
  });
}

// The chart of an array along its rows and columns, at the labels that are chosen on the other axes.
function specOf(array, state) {
  const steps = strides(array.axes), { row, column } = state;
  const start = array.axes.reduce((sum, _, n) => sum + (n === column || n === row ? 0 : steps[n] * state.at[n]), 0);
  const [column_name, columns] = array.axes[column], [row_name, rows] = row === null ? ["", [""]] : array.axes[row];
  const grid = (name) => rows.map((_, r) => columns.map((_, c) => array[name][start + (row === null ? 0 : r * steps[row]) + c * steps[column]]));
  const spec = { kind: state.kind, columns, rows, column_name, row_name, values: grid("values"), hidden: state.hidden };
  if (array.low) Object.assign(spec, { low: grid("low"), high: grid("high") });
  return state.extend(spec, array.name);
}

function select(title, labels, chosen, change) {
  const options = labels.map((label, n) => element("option", { value: n, ...(n === chosen ? { selected: "" } : {}) }, String(label)));
  const node = element("select", {}, ...options);
  node.addEventListener("change", () => change(Number(node.value)));
  return element("label", {}, `${title} `, node);
}

// The chart of an array, or its table, with the choices that it leaves to the reader. `extend` adds to the spec of the chart; labels that
// were chosen are kept in `chosen` by axis, and chosen again.
function arrayFigure({ ...array }, extend = (spec) => spec, chosen = {}) {
  if (!array.axes.length) array.axes = [["value", [array.name]]];
  const box = element("div"), state = { ...layout(array.axes), at: firstLabels(array), hidden: new Set(), extend };
  array.axes.forEach(([name, labels], n) => { if (labels.includes(chosen[name])) state.at[n] = labels.indexOf(chosen[name]); });
  const sizes = array.values.filter((v) => v).map(Math.abs).sort((a, b) => a - b);
  state.isTable = state.kind === "heat" && sizes.length > 1 && sizes[sizes.length - 1] > 1000 * sizes[sizes.length >> 1];
  const redraw = () => {
    const controls = [], toggle = element("button", { type: "button", "aria-pressed": String(state.isTable) }, "table");
    toggle.addEventListener("click", () => ((state.isTable = !state.isTable), redraw()));
    const others = range(array.axes.length).filter((n) => n !== state.column && (state.kind !== "map" || array.axes[n][1].length <= MOST.maps));
    if (others.length > 1) controls.push(select(state.kind === "lines" ? "a line for each" : "rows", others.map((n) => array.axes[n][0]), others.indexOf(state.row), (n) => ((state.row = others[n]), state.hidden.clear(), redraw())));
    array.axes.forEach(([name, labels], n) => {
      if (n !== state.column && n !== state.row && labels.length > 1) controls.push(select(name, labels, state.at[n], (k) => ((state.at[n] = k), (chosen[name] = labels[k]), redraw())));
    });
    const spec = specOf(array, state);
    box.replaceChildren(element("div", { class: "controls" }, ...controls, toggle), state.isTable ? numbers(spec) : chart(spec));
  };
  redraw();
  return box;
}
