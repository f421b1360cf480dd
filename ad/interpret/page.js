// The page of the analyses: its sections. arrays.js makes the figures of arrays, and charts.js draws.

const data = JSON.parse(document.getElementById("data").textContent);
// The NAUC, on a scale of its own, and the train step at which in-context learning has appeared.
function overTraining({ ...spec }, name) {
  if (spec.column_name !== STEPS) return spec;
  const { columns } = spec;
  const nauc = data.over_training[0].arrays.find((array) => array.name === "nauc"), values = new Map(nauc.axes[0][1].map((step, n) => [step, nauc.values[n]]));
  const [first, last] = extent(columns), isShown = data.appeared !== null && first <= data.appeared && data.appeared <= last;
  return {
    ...spec,
    overlay: name === nauc.name ? undefined : { name: "NAUC", values: columns.map((step) => values.get(step) ?? null) },
    marks: isShown ? [[data.appeared, `train step ${data.appeared}: in-context learning has appeared`]] : [],
  };
}

function arrayNode(array, isOpen) {
  const count = array.axes.map(([name, labels]) => `${name} ${labels.length}`).join(" × ");
  const about = ` ${array.about} (${count}${array.interval ? `; 95 % interval: ${array.interval}` : ""})`;
  const node = element("details", {}, element("summary", {}, array.name, element("span", {}, about)));
  const isEmpty = array.values && !array.values.some(isNumber), tooMany = "Its numbers are in the npz file only: they are too many for this page.";
  node.append(array.values && !isEmpty ? arrayFigure(array, overTraining) : element("p", { class: "note" }, isEmpty ? "No number is known." : tooMany));
  node.open = isOpen || location.hash === "#all";
  return node;
}

function sectionNode(entry, id, about, open) {
  const notes = about.map((sentence) => element("p", { class: "note" }, sentence));
  const title = element("h2", {}, entry.name), lead = element("p", { class: "lead" }, entry.title);
  const arrays = entry.arrays.map((array, n) => arrayNode(array, n < open));
  return element("section", { id }, title, lead, ...notes, element("p", { class: "note" }, `${entry.facts}.`), table(entry.table.header, entry.table.rows), ...arrays);
}

function build() {
  const root = document.getElementById("sections"), links = [];
  const add = (id, name, node) => (root.append(node), links.push(element("a", { href: `#${id}` }, name)));
  for (const entry of data.sections) add(entry.name, entry.name, sectionNode(entry, entry.name, entry.about, 1));
  if (data.over_training.length) {
    const note = "Dotted in charts over train steps: the NAUC on held-out tasks, on a scale of its own. Vertical: the train step at which in-context learning has appeared. A table shows the largest changes of one array: the first one with an interval, else the first one by heads.";
    add("over-training", "over training", element("section", { id: "over-training" }, element("h2", {}, "Over training"), element("p", { class: "lead" }, data.answer), element("p", { class: "note" }, note)));
    data.over_training.forEach((entry, n) => add(`over-${entry.name}`, `${entry.name} over training`, sectionNode(entry, `over-${entry.name}`, n ? [] : entry.about, n ? 1 : 3)));
  }
  if (data.left_out.length) {
    const items = data.left_out.map((sentence) => element("li", {}, sentence));
    add("left-out", "left out", element("section", { id: "left-out" }, element("h2", {}, "Left out"), element("ul", {}, ...items)));
  }
  root.append(element("p", { class: "note" }, `config hash ${data.hash}`));
  document.getElementById("nav").append(...links);
}

build();
