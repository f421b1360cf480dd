"use strict";
// The page shows what the server computes: each request is answered with all that there is to see.

const $ = (id) => document.getElementById(id);
const KEYS = { ArrowUp: ["up", "forward"], ArrowDown: ["down"], ArrowLeft: ["left", "turn left"],
  ArrowRight: ["right", "turn right"], " ": ["stay"] };
const SIGNS = { up: "↑", down: "↓", left: "←", right: "→", stay: "•", forward: "↑", "turn left": "↶", "turn right": "↷" };
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

function element(tag, text = "", classes = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (classes) made.className = classes;
  return made;
}

function fill(parent, ...children) { parent.replaceChildren(...children); }

function row(cells, tag = "td") {
  const made = element("tr");
  made.append(...cells.map((cell) => cell instanceof Node ? cell : element(tag, cell)));
  return made;
}

function head(names) { const made = element("thead"); made.append(row(names, "th")); return made; }

const hundredths = (share) => (100 * share).toFixed(share > 0 && share < 0.0995 ? 1 : 0);
const percent = (share) => hundredths(share) + " %";
const decimal = (number) => (number < 0 ? "−" : "") + Math.abs(number).toFixed(2);
const signed = (number) => (number < 0 ? "−" : "+") + Math.abs(number).toFixed(2);

// A bar from `low` to `high`, shares of the width.
function mark(low, high, classes) {
  const made = element("i", "", classes);
  made.style.left = 100 * low + "%";
  made.style.width = 100 * (high - low) + "%";
  return made;
}

function track(...marks) {
  const cell = element("td", "", "bar"), made = element("div", "", "track");
  made.append(...marks);
  cell.append(made);
  return cell;
}

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
    element("br"), last || "Nothing has happened yet.");
  const focused = document.activeElement.dataset.action;
  fill($("buttons"), ...state.actions.map((name, action) => actionButton(state, name, action)));
  if (focused !== undefined) $("buttons").children[focused]?.focus();
  const most = Math.max(...state.returns.map(Math.abs), 1e-9);
  fill($("returns"), ...state.returns.slice(-60).map((value, place, kept) => {
    const bar = element("i", "", value < 0 ? "negative" : "");
    bar.style.height = 100 * Math.abs(value) / most + "%";
    bar.title = `episode ${state.returns.length - kept.length + place + 1}: return ${+value.toFixed(3)}`;
    return bar;
  }));
  $("asking").hidden = state.asked === null;
  if (state.asked) showAsked(state.asked);
}

function actionButton(state, name, action) {
  const made = element("button", (SIGNS[name] ? SIGNS[name] + " " : "") + name, action === state.best ? "best" : "");
  made.disabled = !state.allowed[action];
  made.dataset.action = action;
  made.title = "key: " + action;
  made.addEventListener("click", () => ask("act", { action }));
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
  const table = $("probabilities"), output = state.inside ? null : state.output;
  const rows = state.actions.map((name, action) => {
    const now = state.probabilities[action], before = state.probabilities_before[action];
    const marks = [mark(0, now, "")];
    if (state.edited) marks.push(mark(0, before, "before"));
    const cells = [element("td", name, "name"), track(...marks), percent(now)];
    if (state.edited) cells.push(element("td", percent(before)));
    if (output) {
      cells.push(decimal(state.outputs[action]));
      if (state.edited) cells.push(signed(state.outputs[action] - state.outputs_before[action]));
    }
    return row(cells);
  });
  const body = element("tbody");
  body.append(...rows);
  const names = ["action", "", "probability"];
  if (state.edited) names.push("before");
  if (output) names.push(output);
  if (output && state.edited) names.push("change");
  fill(table, head(names), body);
  $("draw").textContent = `Left to itself it now takes: ${state.actions[state.model_action]}.`;
}

function showAttention(state) {
  const body = element("tbody");
  body.append(...state.heads.map((name, index) => {
    const cells = state.attention[index].map((share, relation) => attentionCell(state, share, index, relation));
    return row([element("td", index ? "head " + name : name, "name"), ...cells]);
  }));
  fill($("attention"), head(["", ...state.relations]), body);
}

function attentionCell(state, share, index, relation) {
  const cell = element("td", share === null ? "–" : hundredths(share));
  if (share !== null) cell.style.backgroundColor = `rgba(var(--heat), ${0.6 * share})`;
  if (state.edited) {
    const before = state.attention_before[index][relation];
    cell.append(element("small", `(${before === null ? "–" : hundredths(before)})`));
  }
  return cell;
}

function showComponents(state) {
  const best = state.actions[state.best], second = state.actions[state.second];
  const total = state.components.reduce((sum, value) => sum + value, 0);
  $("preference").textContent = `What each component of the model adds to the ${state.output} of its best action, ${best}, `
    + `minus that of the second, ${second}: together ${signed(total)}. Heads and MLPs are numbered from layer 0.`;
  const all = state.edited ? [...state.components, ...state.components_before] : state.components;
  const most = Math.max(...all.map(Math.abs), 1e-9), body = element("tbody");
  const span = (value) => [0.5 + Math.min(value, 0) / most / 2, 0.5 + Math.max(value, 0) / most / 2];
  body.append(...state.component_names.map((name, index) => {
    const value = state.components[index], before = state.components_before[index];
    const marks = [mark(...span(value), value < 0 ? "negative" : "")];
    if (state.edited) marks.push(mark(...span(before), "before"));
    marks.push(mark(0.5, 0.5, "zero"));
    marks.at(-1).style.width = "1px";
    const cells = [element("td", /^\d/.test(name) ? "head " + name : name, "name"), track(...marks), signed(value)];
    if (state.edited) cells.push(signed(before));
    return row(cells);
  }));
  const names = ["component", "", "adds"];
  if (state.edited) names.push("before");
  fill($("components"), head(names), body);
}

function showContext(state) {
  const body = element("tbody");
  let episode = null;
  $("images").hidden = !state.context.some((step) => isImage(step.observation));
  for (const step of [...state.context].reverse()) {
    const made = editing === step.index ? editRow(state, step) : contextRow(state, step, step.episode !== episode);
    if (step.episode !== episode && episode !== null) made.classList.add("first");
    if (step.edited) made.classList.add("edited");
    episode = step.episode;
    body.append(made);
  }
  fill($("context"), head(["episode", "step", "at", "action", "reward", "led to", ""]), body);
  if (!state.context.length) body.append(row(["Nothing yet: the first decision is made without a past."]));
}

function contextRow(state, step, isNewest) {
  const buttons = element("td");
  const change = element("button", "change"), remove = element("button", "remove");
  change.addEventListener("click", () => { editing = step.index; showContext(shown); });
  remove.addEventListener("click", () => ask("edit", { edit: "remove", index: step.index }));
  buttons.append(change, " ", remove);
  if (isNewest) {
    const reset = element("button", "forget episode");
    reset.addEventListener("click", () => ask("edit", { edit: "reset", episode: step.episode }));
    buttons.append(" ", reset);
  }
  const led = step.next_observation + (step.ended ? " (end)" : "");
  return row([step.episode + 1, step.time + 1, step.observation, state.actions[step.action],
    +step.reward.toFixed(3), led, buttons].map((cell) => cell instanceof Node ? cell : String(cell)));
}

function editRow(state, step) {
  const action = element("select"), reward = element("input"), buttons = element("td");
  action.append(...state.actions.map((name, index) => new Option(name, index, false, index === step.action)));
  reward.type = "number";
  reward.step = "any";
  reward.value = step.reward;
  const places = ["observation", "next_observation"].map((name) => {
    const input = element("input");
    input.value = step[name];
    input.disabled = !/^\(?[\d, ]+\)?$/.test(step[name]);
    return input;
  });
  const inputs = [action, reward, ...places];
  ["action", "reward", "observation", "led to"].forEach((name, index) => inputs[index].setAttribute("aria-label", name));
  const done = element("button", "done"), cancel = element("button", "cancel");
  done.addEventListener("click", () => {
    const body = { edit: "change", index: step.index };
    if (+action.value !== step.action) body.action = +action.value;
    if (+reward.value !== step.reward) body.reward = +reward.value;
    places.forEach((input, index) => {
      const name = ["observation", "next_observation"][index];
      if (input.value !== step[name]) body[name] = (input.value.match(/\d+/g) || []).map(Number);
    });
    if (Object.keys(body).length > 2) ask("edit", body); else { editing = null; showContext(shown); }
  });
  cancel.addEventListener("click", () => { editing = null; showContext(shown); });
  buttons.append(done, " ", cancel);
  const [at, led] = places;
  return row([step.episode + 1, step.time + 1, at, action, reward, led, buttons].map((cell) => {
    if (typeof cell === "number") return String(cell);
    if (cell.tagName === "TD") return cell;
    const made = element("td");
    made.append(cell);
    return made;
  }));
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
