// The page of the app: it shows what the server computes; each answer has the whole state. Nodes, tables and charts are of charts.js.

const $ = (id) => document.getElementById(id);
const KEYS = { ArrowUp: ["up", "forward"], ArrowDown: ["down"], ArrowLeft: ["left", "turn left"],
  ArrowRight: ["right", "turn right"], " ": ["stay"] };
const SIGNS = { up: "↑", down: "↓", left: "←", right: "→", stay: "•", forward: "↑", "turn left": "↶", "turn right": "↷" };
const MOST_RETURNS = 60; // episodes of the chart
let token = null, shown = null, tasks = {}, busy = false, stopped = false, editing = null;

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
  try { await work(); say(""); } catch (error) {
    say(error instanceof TypeError ? "The app does not answer: is it still running in its terminal?" : error.message);
  }
  busy = false;
}

const ask = (route, body) => alone(async () => show(await post(route, { token, ...body })));

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
  token = state.token ?? token;
  editing = null;
  showWorld(state);
  showDecision(state);
  document.querySelectorAll(".inside").forEach((section) => { section.hidden = Boolean(state.inside); });
  $("nothing-inside").hidden = !state.inside;
  $("nothing-inside").firstElementChild.textContent = state.inside;
  if (!state.inside) { showAttention(state); showComponents(state); }
  document.querySelectorAll(".edited-note").forEach((note) => { note.hidden = !state.edited; });
  $("undo").disabled = !state.edited;
  showContext(state);
}

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
}

function actionButton(state, name, action) {
  const made = button((SIGNS[name] ? SIGNS[name] + " " : "") + name, () => ask("act", { action }));
  if (action === state.best) made.className = "best";
  made.disabled = !state.allowed[action];
  made.dataset.action = action;
  made.title = "key: " + action;
  return made;
}

function showAsked({ value, low, high }) {
  const slider = $("asked");
  slider.min = Math.min(low, value);
  slider.max = Math.max(high, value);
  slider.step = (slider.max - slider.min) / 100 || 1;
  slider.value = value;
  $("asked-value").textContent = +value.toFixed(3);
  $("asked-note").textContent = `From the lowest to the highest return of the histories, ${+low.toFixed(3)} to ${+high.toFixed(3)}.`;
}

function showDecision(state) {
  const output = state.inside ? null : state.output, names = ["action", "", "probability"];
  const rows = state.actions.map((name, action) => {
    const now = state.probabilities[action], before = state.probabilities_before[action];
    const marks = state.edited ? [mark(0, now), mark(0, before, "before")] : [mark(0, now)];
    const cells = [nameCell(name), track(...marks), percent(now)];
    if (state.edited) cells.push(percent(before));
    if (output) cells.push(decimal(state.outputs[action]));
    if (output && state.edited) cells.push(signed(state.outputs[action] - state.outputs_before[action]));
    return cells;
  });
  if (state.edited) names.push("before");
  if (output) names.push(output);
  if (output && state.edited) names.push("change");
  fill($("probabilities"), grid(names, rows));
  $("draw").textContent = `Left to itself it now takes: ${state.actions[state.model_action]}.`;
}

function showAttention(state) {
  const rows = state.heads.map((name, index) => [nameCell(headName(name)),
    ...state.attention[index].map((share, relation) => attentionCell(state, share, index, relation))]);
  fill($("attention"), grid(["", ...state.relations], rows));
}

function attentionCell(state, share, index, relation) {
  const text = (value) => (value === null ? "–" : hundredths(value)), cell = cellOf(text(share));
  if (share !== null) cell.style.backgroundColor = `color-mix(in srgb, var(--c0) ${60 * share}%, transparent)`;
  if (state.edited) cell.append(element("small", {}, `(${text(state.attention_before[index][relation])})`));
  return cell;
}

function showComponents(state) {
  const best = state.actions[state.best], second = state.actions[state.second];
  const total = state.components.reduce((sum, value) => sum + value, 0);
  $("preference").textContent = `What each component of the model adds to the ${state.output} of its best action, ${best}, `
    + `minus that of the second, ${second}: together ${signed(total)}. Heads and MLPs are numbered from layer 0.`;
  const all = state.edited ? [...state.components, ...state.components_before] : state.components;
  const most = Math.max(...all.map(Math.abs), 1e-9);
  const bar = (value, classes) => mark(0.5 + Math.min(value, 0) / most / 2, 0.5 + Math.max(value, 0) / most / 2, classes);
  const rows = state.component_names.map((name, index) => {
    const value = state.components[index], before = state.components_before[index], zero = mark(0.5, 0.5, "zero");
    const marks = [bar(value, value < 0 ? "negative" : ""), ...(state.edited ? [bar(before, "before")] : []), zero];
    zero.style.width = "1px";
    return [nameCell(headName(name)), track(...marks), signed(value), ...(state.edited ? [signed(before)] : [])];
  });
  fill($("components"), grid(["component", "", "adds", ...(state.edited ? ["before"] : [])], rows));
}

function showContext(state) {
  const steps = [...state.context].reverse(), isNewest = (n) => !n || steps[n].episode !== steps[n - 1].episode;
  $("images").hidden = !state.context.some((step) => isImage(step.observation));
  const rows = steps.map((step, n) => (editing === step.index ? editRow(state, step) : contextRow(state, step, isNewest(n))));
  if (!steps.length) rows.push([element("td", { colspan: 7 }, "Nothing yet: the first decision is made without a past.")]);
  fill($("context"), grid(["episode", "step", "at", "action", "reward", "led to", ""], rows));
  $("context").querySelectorAll("tbody tr").forEach((row, n) => {
    row.classList.toggle("first", n > 0 && isNewest(n));
    row.classList.toggle("edited", Boolean(steps[n]?.edited));
  });
}

function contextRow(state, step, isNewest) {
  const buttons = [button("change", () => { editing = step.index; showContext(shown); }), " ",
    button("remove", () => ask("edit", { edit: "remove", index: step.index }))];
  if (isNewest) buttons.push(" ", button("forget episode", () => ask("edit", { edit: "reset", episode: step.episode })));
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
    const body = { edit: "change", index: step.index };
    if (+action.value !== step.action) body.action = +action.value;
    if (+reward.value !== step.reward) body.reward = +reward.value;
    places.forEach((input, index) => {
      const name = ["observation", "next_observation"][index];
      if (input.value !== step[name]) body[name] = (input.value.match(/\d+/g) || []).map(Number);
    });
    if (Object.keys(body).length > 2) ask("edit", body); else leave();
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
  } finally { $("stop").disabled = true; }
});

async function start() {
  stopped = true;
  while (busy) await new Promise((wake) => setTimeout(wake, 20));
  return ask("start", { token: null, checkpoint: +$("checkpoint").value, split: $("split").value,
    task: +$("task").value, seed: +$("seed").value });
}

function listTasks() {
  fill($("task"), ...tasks[$("split").value].map((name, index) => new Option(name, index)));
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  if (event.key === " " && event.target.tagName === "BUTTON") return;
  const until = { m: "step", e: "episode", f: "reward" }[event.key];
  const named = shown ? shown.actions.findIndex((name) => (KEYS[event.key] || []).includes(name)) : -1;
  const action = /^\d$/.test(event.key) ? +event.key : named;
  if (until) play(until);
  else if (shown && shown.allowed[action]) ask("act", { action });
  else return;
  event.preventDefault();
}

async function open() {
  const run = await post("run", {});
  tasks = run.tasks;
  document.title = `Inside ${run.name}`;
  $("name").textContent = run.name;
  $("noun").textContent = run.task_noun;
  fill($("checkpoint"), ...run.checkpoints.map((step) => new Option(`${step} train steps`, step)));
  listTasks();
  $("split").addEventListener("change", listTasks);
  for (const id of ["checkpoint", "split", "task", "seed"]) {
    $(id).addEventListener("change", () => { $(id).blur(); start(); }); // so that keys play again
  }
  $("setup").addEventListener("submit", (event) => { event.preventDefault(); start(); });
  $("stop").addEventListener("click", () => { stopped = true; });
  $("undo").addEventListener("click", () => ask("edit", { edit: "undo" }));
  $("asked").addEventListener("input", () => { $("asked-value").textContent = +(+$("asked").value).toFixed(3); });
  $("asked").addEventListener("change", () => ask("ask", { value: +$("asked").value }));
  document.querySelectorAll("[data-until]").forEach((button) => {
    button.addEventListener("click", () => play(button.dataset.until));
  });
  $("keys").textContent = "Keys: arrows or the number of an action; m lets the model take a step, e play the episode, f play until a reward.";
  document.addEventListener("keydown", pressed);
}

open().then(start, (error) => say(error.message));
