// The page of the app: it shows what the server computes; each answer has the whole state. Nodes, tables and charts are of charts.js.

const $ = (id) => document.getElementById(id);
const KEYS = { ArrowUp: ["up", "forward"], ArrowDown: ["down"], ArrowLeft: ["left", "turn left"],
  ArrowRight: ["right", "turn right"], " ": ["stay"] };
const SIGNS = { up: "↑", down: "↓", left: "←", right: "→", stay: "•", forward: "↑", "turn left": "↶", "turn right": "↷" };
const MOST_RETURNS = 60; // episodes of the chart
const ROLLOUTS = 10;
const KEYS_TEXT = "Keys: arrows or the number of an action; m lets the model take a step, e play the episode, f play until a reward; "
  + "u takes the last entry back, [ and ] ask for less and for more.";
const chosenLabels = {}; // by axis, of the arrays in the sections that unfold
const run = { name: "", tasks: {} };
let token = null, game = null, shown = null, busy = false, stopped = false, editing = null, direction = null;

async function post(route, body) {
  const answer = await fetch("/" + route, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error);
  return content;
}

// Ask one thing at a time: what is pressed meanwhile does nothing.
async function alone(work) {
  if (busy) return;
  busy = true;
  const slow = setTimeout(() => progress(), 200);
  try { await work(); say(""); } catch (error) {
    say(error instanceof TypeError ? "The app does not answer: is it still running in its terminal?" : error.message);
  }
  clearTimeout(slow);
  $("progress").hidden = true;
  busy = false;
}

// A bar without a value only says that something is under way.
function progress(value) {
  $("progress").hidden = false;
  if (value === undefined) $("progress").removeAttribute("value"); else $("progress").value = value;
}

const ask = (route, body) => alone(async () => { show(await post(route, { token, ...body })); await unfold(); });
const enter = (entry) => ask("do", { entry }); // every entry of the game's list

function say(sentence) { $("message").textContent = sentence; $("message").hidden = !sentence; }

function fill(parent, ...children) { parent.replaceChildren(...children); }

const cellOf = (...children) => element("td", {}, ...children);
const nameCell = (name) => element("td", { class: "name" }, name);
const grid = (names, rows) => table(names, rows).firstElementChild; // without the box that scrolls, which stays
const headName = (name) => (/^\d/.test(name) ? "head " + name : name);

function button(text, act) {
  const made = element("button", { type: "button" }, text);
  made.addEventListener("click", act);
  return made;
}

const hundredths = (share) => (100 * share).toFixed(share > 0 && share < 0.0995 ? 1 : 0);
const percent = (share) => hundredths(share) + " %";
const decimal = (number) => (number < 0 ? "−" : "") + Math.abs(number).toFixed(2);
const signed = (number) => (number < 0 ? "−" : "+") + Math.abs(number).toFixed(2);

// A bar from `low` to `high`, shares of the width.
function mark(low, high, classes = "") {
  const made = element("i", { class: classes });
  made.style.left = 100 * low + "%";
  made.style.width = 100 * (high - low) + "%";
  return made;
}

const track = (...marks) => element("td", { class: "bar" }, element("div", { class: "track" }, ...marks));

function show(state) {
  shown = state;
  if (state.token) [token, game] = [state.token, chosen()];
  editing = null;
  showWorld(state);
  showSeen(state);
  showDecision(state);
  document.querySelectorAll(".inside").forEach((section) => { section.hidden = Boolean(state.inside); });
  $("nothing-inside").hidden = !state.inside;
  $("nothing-inside").firstElementChild.textContent = state.inside;
  if (!state.inside) { showAttention(state); showDirections(state); showComponents(state); showChanges(state); }
  document.querySelectorAll(".changed-note").forEach((note) => { note.hidden = !state.changed; });
  $("undo").disabled = !state.entries.length;
  $("restore").disabled = !state.changed;
  for (const id of ["scanned", "rolled", "saved"]) fill($(id));
  showContext(state);
  history.replaceState(null, "", "#" + encodeURIComponent(JSON.stringify(linked(state))));
}

// What a link holds: with it the server makes the same state again.
const linked = (state) => ({ run: run.name, ...game, direction, entries: state.entries });
const chosen = () => ({ checkpoint: +$("checkpoint").value, split: $("split").value, task: +$("task").value, seed: +$("seed").value });

const isImage = (observation) => /image/.test(observation);

function showWorld(state) {
  $("image").hidden = !state.image;
  if (state.image) $("image").src = state.image;
  $("text").hidden = Boolean(state.image);
  $("text").textContent = "observation " + state.observation;
  const [last] = state.last.map(({ action, reward, ended }) => `Last: ${state.actions[action]}, reward ${+reward.toFixed(3)}`
    + (ended ? "; the episode ended, a new one begins." : "."));
  const place = isImage(state.observation) ? "" : `, at ${state.observation}`;
  fill($("status"), `Episode ${state.episode + 1}, step ${state.time + 1} of ${state.episode_length}${place}.`,
    element("br", {}), last || "Nothing has happened yet.");
  const focused = document.activeElement.dataset.action;
  fill($("buttons"), ...state.actions.map((name, action) => actionButton(state, name, action)));
  if (focused !== undefined) $("buttons").children[focused]?.focus();
  const first = Math.max(0, state.returns.length - MOST_RETURNS), returns = state.returns.slice(first);
  const columns = returns.map((_, place) => first + place + 1), [low, high] = extent([0, ...returns]), domain = low < high ? [low, high] : [0, 1];
  fill($("returns"), returns.length ? chart({ kind: "columns", columns, values: [returns], column_name: "episode", domain }) : "No episode has ended yet.");
  $("asking").hidden = state.asked === null;
  if (state.asked) showAsked(state.asked);
  $("timing").hidden = state.read_time === null;
  if (state.read_time !== null) {
    $("read-time").max = state.last_time;
    $("read-time").value = $("read-time-value").value = state.read_time;
    $("true-time").disabled = !state.shift;
  }
  $("putting").hidden = !state.grid;
  if (state.grid && $("thing").options.length < 2) $("thing").append(...state.things.map((name) => new Option(name)));
}

// Put what is chosen into the cell of the picture under the pointer.
function clickedGrid(event) {
  if (!shown.grid || !$("thing").value) return;
  const box = $("image").getBoundingClientRect(), [width, height] = shown.grid;
  const x = Math.floor((event.clientX - box.left) / box.width * width), y = Math.floor((event.clientY - box.top) / box.height * height);
  enter({ do: "put", thing: $("thing").value, x, y });
}

// What the model reads of each cell, a grid for each channel; the agent stands below, in the middle, and looks up.
function showSeen(state) {
  $("seen").hidden = !state.seen;
  if (!state.seen) return;
  if ($("view-thing").options.length < 2) $("view-thing").append(...state.view_things.map((name) => new Option(name)));
  $("unnatural").hidden = !state.unnatural;
  const channels = Object.entries(state.seen).map(([name, { numbers, words }]) => {
    const cells = numbers.flatMap((row, y) => row.map((number, x) => {
      const cell = element("button", { type: "button", class: `cell ${name}-${words[number]}`, "data-tip": `${words[number]} (${number})\nrow ${y}, column ${x}` }, String(number));
      cell.addEventListener("click", () => { if ($("view-thing").value) enter({ do: "put", thing: $("view-thing").value, x, y, view: true }); });
      return cell;
    }));
    const used = [...new Set(numbers.flat())].sort((a, b) => a - b).map((number) => `${number} ${words[number]}`).join(", ");
    const box = element("div", { class: "cells" }, ...cells);
    box.style.gridTemplateColumns = `repeat(${numbers[0].length}, 1fr)`;
    return element("div", { class: "channel" }, element("b", {}, name), box, element("p", { class: "note" }, used));
  });
  fill($("channels"), ...channels);
}

function actionButton(state, name, action) {
  const made = button((SIGNS[name] ? SIGNS[name] + " " : "") + name, () => enter(action));
  if (action === state.best) made.className = "best";
  made.disabled = !state.allowed[action];
  made.dataset.action = action;
  made.title = "key: " + action;
  return made;
}

function showAsked({ value, low, high }) {
  const slider = $("asked"), beyond = (high - low) / 2;
  slider.min = Math.min(low - beyond, value);
  slider.max = Math.max(high + beyond, value);
  slider.step = "any";
  slider.value = value;
  $("asked-value").value = +value.toFixed(3);
  const is_beyond = value < low - 1e-6 || value > high + 1e-6 ? " This one is beyond them: the model never read what leads to it." : "";
  $("asked-note").textContent = `The returns of the histories are from ${+low.toFixed(3)} to ${+high.toFixed(3)}.${is_beyond}`;
  if (!$("scan-low").value) [$("scan-low").value, $("scan-high").value] = [(low - beyond / 2).toFixed(2), (high + beyond / 2).toFixed(2)];
}

function showDecision(state) {
  const output = state.inside ? null : state.output, names = ["action", "", "probability"];
  const rows = state.actions.map((name, action) => {
    const now = state.probabilities[action], before = state.probabilities_before[action];
    const marks = state.changed ? [mark(0, now), mark(0, before, "before")] : [mark(0, now)];
    const cells = [nameCell(name), track(...marks), percent(now)];
    if (state.changed) cells.push(percent(before));
    if (output) cells.push(decimal(state.outputs[action]));
    if (output && state.changed) cells.push(signed(state.outputs[action] - state.outputs_before[action]));
    return cells;
  });
  if (state.changed) names.push("before");
  if (output) names.push(output);
  if (output && state.changed) names.push("change");
  fill($("probabilities"), grid(names, rows));
  $("draw").textContent = `Left to itself it now takes: ${state.actions[state.model_action]}.`;
}

// The numbers of the relations that some token is in, now or before the changes.
const present = (state) => range(state.relations.length).filter((place) => [...state.attention, ...state.attention_before].some((row) => row[place] !== null));

function showAttention(state) {
  const places = present(state), rows = state.heads.map((name, index) => [nameCell(headName(name)),
    ...places.map((place) => attentionCell(state, state.attention[index][place], index, place))]);
  fill($("attention"), grid(["", ...places.map((place) => state.relations[place])], rows));
}

function attentionCell(state, share, index, relation) {
  const text = (value) => (value === null ? "–" : hundredths(value)), cell = cellOf(text(share));
  if (share !== null) cell.style.backgroundColor = `color-mix(in srgb, var(--c0) ${60 * share}%, transparent)`;
  if (state.changed) cell.append(element("small", {}, `(${text(state.attention_before[index][relation])})`));
  return cell;
}

function showDirections(state) {
  const options = [new Option("best action − second", ""), ...state.directions.map((name) => new Option(name.replace(" - ", " − "), name))];
  fill($("direction"), ...options);
  $("direction").value = state.direction_name ?? "";
}

function directionText(state) {
  const weights = state.actions.map((name, action) => [name, state.direction[action]]).filter(([, weight]) => weight);
  const [plus, minus] = [1, -1].map((sign) => weights.filter(([, weight]) => weight * sign > 0).map(([name]) => name));
  return `${plus.join(" and ")} minus ${minus.length > 1 ? `the mean of ${minus.join(" and ")}` : minus[0]}`;
}

function showComponents(state) {
  const total = state.components.reduce((sum, value) => sum + value, 0);
  $("preference").textContent = `What each component of the model adds to the ${state.output} of ${directionText(state)}: `
    + `together ${signed(total)}. Heads and MLPs are numbered from layer 0.`;
  const all = state.changed ? [...state.components, ...state.components_before] : state.components;
  const most = Math.max(...all.map(Math.abs), 1e-9);
  const bar = (value, classes) => mark(0.5 + Math.min(value, 0) / most / 2, 0.5 + Math.max(value, 0) / most / 2, classes);
  const rows = state.component_names.map((name, index) => {
    const value = state.components[index], before = state.components_before[index], zero = mark(0.5, 0.5, "zero");
    const marks = [bar(value, value < 0 ? "negative" : ""), ...(state.changed ? [bar(before, "before")] : []), zero];
    zero.style.width = "1px";
    return [nameCell(headName(name)), track(...marks), signed(value), ...(state.changed ? [signed(before)] : [])];
  });
  fill($("components"), grid(["component", "", "adds", ...(state.changed ? ["before"] : [])], rows));
  const places = present(state), text = (value) => (value === null ? "–" : signed(value));
  const heads = state.heads.slice(1).map((name, index) => [nameCell(headName(name)), ...places.map((place) => text(state.contributions[index][place]))]);
  fill($("by-token"), grid(["through", ...places.map((place) => state.relations[place])], heads));
}

// What a person has changed in the model, and the buttons for it.
function showChanges(state) {
  const boxes = state.removable.map((name) => {
    const box = element("input", { type: "checkbox", value: name });
    box.checked = (state.ablated.components || []).includes(name);
    box.addEventListener("change", ablate);
    return element("label", {}, box, " ", headName(name));
  });
  fill($("removable"), ...boxes);
  if (state.ablated.kind) $("kind").value = state.ablated.kind;
  if (!$("point").options.length) $("point").append(...state.points.map((name) => new Option(name)));
  if (state.steering.point) $("point").value = state.steering.point;
  $("coefficient").value = state.steering.coefficient || 0;
  $("coefficient").disabled = state.marks.length < 2;
  $("marks").textContent = ["Mark a situation A and another one B, then choose a coefficient.", `Marked: ${state.marks[0]}. Mark the other one.`,
    "A and B are marked: the coefficient times the difference B − A is added at the point, in every decision."][state.marks.length];
}

function ablate() {
  const components = [...document.querySelectorAll("#removable input:checked")].map((box) => box.value);
  enter({ do: "ablate", components, kind: $("kind").value });
}

// Play from here to the end of the episode a few times, changed and intact.
const rollout = () => alone(async () => {
  const played = { changed: [], intact: [] };
  stopped = false;
  for (let number = 0; number < ROLLOUTS && !stopped; number++) {
    progress(number / ROLLOUTS);
    const answer = await post("rollout", { token, number });
    for (const [name, one] of Object.entries(answer)) played[name].push(one);
    showRollouts(played);
  }
});

function showRollouts(played) {
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const rows = Object.entries(played).filter(([, all]) => all.length).map(([name, all]) => [
    { changed: "as changed", intact: "intact" }[name], all.length, ...["return", "steps"].flatMap((key) => {
      const values = all.map((one) => (key === "return" ? one.return : one.actions.length)), text = key === "return" ? decimal : (number) => number.toFixed(0);
      return [text(mean(values)), `${text(Math.min(...values))} to ${text(Math.max(...values))}`];
    })]);
  fill($("rolled"), grid(["model", "rollouts", "return", "", "steps", ""], rows));
}

// Fetch what the open sections show of the present decision.
async function unfold() {
  for (const part of shown.inside ? [] : document.querySelectorAll("details[data-part][open]")) {
    const box = part.querySelector(".arrays"), read = shown.read_time;
    const extend = (spec, name) => (name === "time" ? { ...spec, marks: [[read, "this decision"]] } : spec);
    const node = (array) => element("div", {}, element("h3", {}, array.name.replaceAll("_", " ")), element("p", { class: "note" }, array.about),
      arrayFigure(array, extend, chosenLabels));
    try { fill(box, ...(await post("unfold", { token, part: part.dataset.part })).arrays.map(node)); } catch (error) { fill(box, element("p", {}, error.message)); }
  }
}

const save = () => alone(async () => {
  const { situations } = await post("save", { token });
  $("saved").textContent = `Saved in the bank of the run: ${situations.join(", ")}.`;
});

const scan = () => alone(async () => {
  const body = { token, low: +$("scan-low").value, high: +$("scan-high").value };
  showScan(await post("scan", body));
});

function showScan({ asked: columns, components, heads, relations, ...found }) {
  const turned = (values) => values[0].map((_, row) => values.map((own) => own[row]));
  const { low, high, value } = shown.asked, marks = [[low, "lowest"], [high, "highest"], [value, "asked"]];
  const common = { kind: "lines", columns, column_name: "asked return", marks };
  const looks = heads.flatMap((head, index) => relations.map((relation, place) => [
    `${headName(head)}: ${relation}`, found.attention.map((own) => own[index][place])]));
  const r = found.correlation.map((number, index) => [headName(components[index]), number === null ? "–" : signed(number)]);
  fill($("scanned"),
    chart({ ...common, rows: shown.actions, values: turned(found.probability), title: "Probability of each action", domain: [0, 1] }),
    chart({ ...common, rows: components.map(headName), values: turned(found.contribution), title: `Contributions to ${directionText(shown)}` }),
    chart({ ...common, rows: looks.map(([name]) => name), values: looks.map(([, values]) => values), title: "Attention", domain: [0, 1] }),
    element("div", {}, element("b", {}, "Correlation with the sum over these returns"), table(["component", "correlation"], r)));
}

function showContext(state) {
  const steps = [...state.context].reverse(), isNewest = (n) => !n || steps[n].episode !== steps[n - 1].episode;
  $("images").hidden = !state.context.some((step) => isImage(step.observation));
  const rows = steps.map((step, n) => (editing === step.index ? editRow(state, step) : contextRow(state, step, isNewest(n))));
  if (!steps.length) rows.push([element("td", { colspan: 7 }, state.last.length ? "Nothing: it reads this decision alone." : "Nothing yet: the first decision is made without a past.")]);
  fill($("context"), grid(["episode", "step", "at", "action", "reward", "led to", ""], rows));
  $("context").querySelectorAll("tbody tr").forEach((row, n) => {
    row.classList.toggle("first", n > 0 && isNewest(n));
    row.classList.toggle("edited", Boolean(steps[n]?.edited));
  });
}

function contextRow(state, step, isNewest) {
  const buttons = [button("change", () => { editing = step.index; showContext(shown); }), " ",
    button("remove", () => enter({ do: "remove", index: step.index }))];
  if (isNewest) buttons.push(" ", button("forget episode", () => enter({ do: "forget", episode: step.episode })));
  const led = step.next_observation + (step.ended ? " (end)" : "");
  return [step.episode + 1, step.time + 1, step.observation, state.actions[step.action], +step.reward.toFixed(3), led, cellOf(...buttons)];
}

function editRow(state, step) {
  const action = element("select", {}), reward = element("input", { type: "number", step: "any" });
  action.append(...state.actions.map((name, index) => new Option(name, index, false, index === step.action)));
  reward.value = step.reward;
  const places = ["observation", "next_observation"].map((name) => {
    const input = element("input", {});
    input.value = step[name];
    input.disabled = !/^\(?[\d, ]+\)?$/.test(step[name]);
    return input;
  });
  const [at, led] = places, inputs = { action, reward, observation: at, "led to": led };
  for (const [name, input] of Object.entries(inputs)) input.setAttribute("aria-label", name);
  const leave = () => { editing = null; showContext(shown); };
  const done = button("done", () => {
    const body = { do: "change", index: step.index };
    if (+action.value !== step.action) body.action = +action.value;
    if (+reward.value !== step.reward) body.reward = +reward.value;
    places.forEach((input, index) => {
      const name = ["observation", "next_observation"][index];
      if (input.value !== step[name]) body[name] = (input.value.match(/\d+/g) || []).map(Number);
    });
    if (Object.keys(body).length > 2) enter(body); else leave();
  });
  const buttons = cellOf(done, " ", button("cancel", leave));
  return [step.episode + 1, step.time + 1, cellOf(at), cellOf(action), cellOf(reward), cellOf(led), buttons];
}

// The model plays a few steps for each answer, so that the page shows them and can stop it.
const play = (until) => alone(async () => {
  stopped = false;
  $("stop").disabled = false;
  try {
    let state = null;
    do {
      state = await post("model", { token, until });
      show(state);
    } while (!state.done && !stopped);
    await unfold();
  } finally { $("stop").disabled = true; }
});

// Begin a game: as the form says, or with the entries of a link.
async function start(entries = []) {
  stopped = true;
  while (busy) await new Promise((wake) => setTimeout(wake, 20));
  return ask("start", { token: null, ...chosen(), direction, entries });
}

// Restore the state of the link in the address; return whether there is one that can be restored.
async function restore() {
  if (location.hash.length < 2) return false;
  try {
    const link = JSON.parse(decodeURIComponent(location.hash.slice(1)));
    if (link.run !== run.name) throw new Error(`The link is of the run ${link.run}: a new game begins.`);
    $("split").value = link.split;
    listTasks();
    for (const id of ["checkpoint", "task", "seed"]) $(id).value = link[id];
    direction = link.direction;
    if ($("task").value === "" || $("checkpoint").value === "") throw new Error("The link is stale: its task or checkpoint is not there any more; a new game begins.");
    shown = null;
    await start(link.entries);
    if (shown) return true;
  } catch (error) { say(error instanceof SyntaxError || error instanceof URIError || error instanceof TypeError ? "The link is damaged: a new game begins." : error.message); }
  const why = $("message").textContent;
  direction = null;
  for (const id of ["checkpoint", "split", "task"]) $(id).selectedIndex = 0;
  listTasks();
  $("seed").value = 0;
  await start();
  say(why);
  return true;
}

function listTasks() {
  fill($("task"), ...(run.tasks[$("split").value] || []).map((name, index) => new Option(name, index)));
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  if (event.key === " " && /^(BUTTON|SUMMARY)$/.test(event.target.tagName)) return;
  const until = { m: "step", e: "episode", f: "reward" }[event.key], by = { "[": -1, "]": 1 }[event.key];
  const named = shown ? shown.actions.findIndex((name) => (KEYS[event.key] || []).includes(name)) : -1;
  const action = /^\d$/.test(event.key) ? +event.key : named;
  if (until) play(until);
  else if (event.key === "u") ask("undo");
  else if (by && shown?.asked) enter({ do: "ask", value: +(shown.asked.value + by * (shown.asked.high - shown.asked.low) / 20).toFixed(3) });
  else if (shown && shown.allowed[action]) enter(action);
  else return;
  event.preventDefault();
}

// Call `work` with the value of an input when it has changed, and give the keys back to the game.
function changes(id, work) {
  $(id).addEventListener("change", () => { $(id).blur(); work($(id).value); });
}

async function open() {
  Object.assign(run, await post("run", {}));
  document.title = `Inside ${run.name}`;
  $("name").textContent = run.name;
  $("noun").textContent = run.task_noun;
  fill($("checkpoint"), ...run.checkpoints.map((step) => new Option(`${step} train steps`, step)));
  listTasks();
  changes("split", listTasks);
  for (const id of ["checkpoint", "split", "task", "seed"]) changes(id, () => start());
  $("setup").addEventListener("submit", (event) => { event.preventDefault(); start(); });
  for (const id of ["stop", "stop-rollouts"]) $(id).addEventListener("click", () => { stopped = true; });
  $("undo").addEventListener("click", () => ask("undo"));
  $("restore").addEventListener("click", () => enter({ do: "restore" }));
  $("copy").addEventListener("click", () => navigator.clipboard.writeText(location.href));
  $("asked").addEventListener("input", () => { $("asked-value").value = +(+$("asked").value).toFixed(3); });
  for (const id of ["asked", "asked-value"]) changes(id, (value) => enter({ do: "ask", value: +(+value).toFixed(3) }));
  $("read-time").addEventListener("input", () => { $("read-time-value").value = $("read-time").value; });
  for (const id of ["read-time", "read-time-value"]) changes(id, (value) => enter({ do: "time", time: +value }));
  $("true-time").addEventListener("click", () => enter({ do: "time", time: null }));
  $("image").addEventListener("click", clickedGrid);
  changes("direction", (value) => { direction = value || null; ask("look", { direction }); });
  changes("kind", () => document.querySelector("#removable input:checked") && ablate());
  for (const name of ["A", "B"]) $(`mark-${name}`).addEventListener("click", () => enter({ do: "mark", name }));
  for (const id of ["coefficient", "point"]) changes(id, () => shown.marks.length > 1 && enter({ do: "steer", point: $("point").value, coefficient: +$("coefficient").value }));
  $("rollout").addEventListener("click", rollout);
  $("scan").addEventListener("click", scan);
  $("save").addEventListener("click", save);
  document.querySelectorAll("[data-part]").forEach((part) => part.addEventListener("toggle", () => part.open && shown && alone(unfold)));
  document.querySelectorAll("[data-until]").forEach((button) => {
    button.addEventListener("click", () => play(button.dataset.until));
  });
  $("keys").textContent = KEYS_TEXT;
  document.addEventListener("keydown", pressed);
  addEventListener("hashchange", restore);
  if (!await restore()) await start();
}

open().catch((error) => say(error.message));
