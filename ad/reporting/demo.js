// The page in which a frozen model plays a dark room beside a random walk: rooms, controls, curves and attention.
// demo_model.js plays, charts.js draws the curves, and page.css has the colors.

const { model, world } = JSON.parse(document.getElementById("data").textContent);
const [ROWS, COLUMNS] = world.shape;
const MOST_EPISODES = 300; // in the curves, the newest ones
const MEAN = 10; // episodes of which the curve of returns is the mean
const CURVE_PAUSE = 250; // milliseconds between two drawings of the curves while playing
const FRAME = 40; // milliseconds of steps between two pictures, as fast as it can
const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const NO_GOAL = world.starts.length > 1 ? "no task of this world has its goal here" : "episodes start here";
const byId = (id) => document.getElementById(id);

const agent = new Agent(model);
let game = null; // of one goal
let games = 0; // so far: the seeds of the random numbers
let cursor = world.first_goal; // the cell that the arrow keys have chosen
let playing = false, due = 0, lastTime = 0, lastCurves = 0;

const place = (cell) => `row ${Math.floor(cell / COLUMNS) + 1}, column ${(cell % COLUMNS) + 1}`;
const count = (number, noun) => `${textOf(number)} ${noun}${number === 1 ? "" : "s"}`;
const kind = (cell) => (world.goals[cell].train ? "a goal that the model was trained on" : "held out: no agent in its training had this goal");

// Begin a game with an empty memory.
function begin(goal) {
  agent.forget();
  games += 1;
  const player = new Player(world, goal, agent, generator(2 * games)), walk = new Player(world, goal, new Walker(world.actions.length), generator(2 * games + 1));
  game = { goal, player, walk, episodes: 0, lengths: [[], []], returns: [[], []], marks: [] };
  cursor = goal;
  byId("curves").replaceChildren(...makeCurves());
  tellGoal();
  show(true);
}

function tellGoal() {
  const { shortest } = world.goals[game.goal], path = `The shortest path has ${count(shortest, "step")}${world.starts.length > 1 ? " on average" : ""}.`;
  byId("goal").replaceChildren("Goal: ", element("b", {}, place(game.goal)), `, ${kind(game.goal)}. ${path}`);
}

// Take one step in both rooms. The random walk begins each episode with the model, and plays the rest of its own when the model's ends.
function step() {
  const { player, walk } = game;
  player.step();
  if (!walk.over || player.time === 1) walk.step();
  if (!player.over) return;
  while (!walk.over) walk.step();
  game.episodes += 1;
  [player, walk].forEach((each, row) => (game.lengths[row].push(each.time), game.returns[row].push(each.total)));
  if (byId("forgets").checked) agent.forget();
}

// Curves over episodes, a row for the model, the random walk and the optimum. `source` is "lengths" or "returns".
function curve(source, title, value, most, optimum) {
  const rows = ["the model", "a random walk", "the best possible"], styles = [{ color: 0, width: 2.5 }, { color: 1, width: 1.2 }, { color: 6, dash: 1 }];
  const spec = { kind: "lines", title, rows, styles, column_name: "episode", value_name: value, domain: [0, most], columns: [], values: [[], [], []], marks: [] };
  const figure = chart(spec), own = game;
  const update = () => {
    const first = Math.max(0, own.episodes - MOST_EPISODES), shown = range(Math.max(MEAN, own.episodes + 1 - first)).map((n) => first + n);
    const refill = (list, values) => list.splice(0, list.length, ...values);
    refill(spec.columns, shown.map((n) => n + 1));
    own[source].forEach((values, row) => refill(spec.values[row], shown.map((n) => meanUpTo(values, n, source === "returns" ? MEAN : 1))));
    refill(spec.values[2], shown.map(() => optimum));
    refill(spec.marks, own.marks.filter(([at]) => at >= first + 1));
    figure.redraw();
  };
  return { figure, update };
}

// The mean of values n - window + 1 to n, null if value n is not there.
function meanUpTo(values, n, window) {
  const last = values.slice(Math.max(0, n + 1 - window), n + 1);
  return n < values.length ? last.reduce((sum, value) => sum + value, 0) / last.length : null;
}

function makeCurves() {
  const { optimal_return: optimum, shortest } = world.goals[game.goal], length = world.episode_length;
  game.curves = [
    ...(world.terminate ? [curve("lengths", "Steps of each episode", "steps", length, Math.min(shortest, length))] : []),
    curve("returns", `Return, mean of the last ${MEAN} episodes`, "return", Math.max(1, optimum), optimum),
  ];
  return game.curves.map(({ figure }) => figure);
}

// Draw a room and return a function that moves what is in it.
function room(svg) {
  const square = (cell, inset, attributes) => element("rect", { x: (cell % COLUMNS) + inset, y: Math.floor(cell / COLUMNS) + inset, width: 1 - 2 * inset, height: 1 - 2 * inset, ...attributes });
  svg.setAttribute("viewBox", `0 0 ${COLUMNS} ${ROWS}`);
  for (const cell of range(ROWS * COLUMNS)) {
    const goal = world.goals[cell], rect = square(cell, 0, { class: goal ? "cell" : "cell start", "data-cell": cell, "data-tip": goal ? `${place(cell)}\n${kind(cell)}` : `${place(cell)}\n${NO_GOAL}` });
    svg.append(rect);
    if (goal && !goal.train) svg.append(element("circle", { cx: (cell % COLUMNS) + 0.14, cy: Math.floor(cell / COLUMNS) + 0.14, r: 0.09, class: "untrained" }));
  }
  const path = element("path", { class: "path" }), dot = element("circle", { r: 0.27, class: "agent" }), middle = (cell) => [(cell % COLUMNS) + 0.5, Math.floor(cell / COLUMNS) + 0.5];
  const moving = element("g", {});
  svg.append(moving);
  return (player) => {
    const frame = svg.id === "room" ? [square(cursor, 0.06, { class: "cursor" })] : [];
    path.setAttribute("d", `M${player.path.map((cell) => middle(cell).join(",")).join("L")}`);
    const [cx, cy] = middle(player.cell);
    dot.setAttribute("cx", cx);
    dot.setAttribute("cy", cy);
    moving.replaceChildren(square(player.goal, 0.1, { class: "goal", rx: 0.12, "pointer-events": "none" }), path, dot, ...frame);
  };
}

function statusText() {
  const { player, lengths, returns, episodes } = game, seen = agent.rewardSeen ? "a reward is in it" : "no reward is in it";
  const now = `Episode ${episodes + (player.over ? 0 : 1)}, step ${player.time} of at most ${world.episode_length}. Memory: ${count(agent.length, "step")} of ${model.context}, ${seen}.`;
  return episodes ? `${now} Last episode: ${count(lengths[0].at(-1), "step")}, return ${textOf(returns[0].at(-1))}; the random walk: ${count(lengths[1].at(-1), "step")}, return ${textOf(returns[1].at(-1))}.` : now;
}

// The attention of the last decision over the decisions in the window, of a head or the mean of all.
function attention() {
  const { patterns } = agent.transformer, chosen = byId("head").value, [layer, head] = chosen.split(".").map(Number);
  const all = chosen ? [patterns[layer][head]] : patterns.flat();
  return range(agent.numRead).map((token) => all.reduce((sum, pattern) => sum + pattern[token], 0) / all.length);
}

function drawStrip() {
  const strip = byId("strip"), width = strip.clientWidth || 600, weights = attention(), [, most] = extent([0.05, ...weights]);
  const side = width / model.context, top = 16, bottom = 110;
  strip.replaceChildren(element("text", { x: 0, y: 12 }, weights.length ? `largest share ${Math.round(100 * Math.max(...weights))} %` : "The memory is empty."));
  weights.forEach((weight, token) => {
    const [before, now] = agent.entries.slice(token, token + 2), x = width - side * (weights.length - token), height = ((bottom - top) * weight) / most;
    const past = before.observation in world.successors ? `before: ${place(before.observation)}, ${world.actions[before.action]}, reward ${before.reward}\n` : "";
    const tip = `${past}now: ${place(now.observation)}, step ${now.time + 1} of the episode\nattention ${(100 * weight).toFixed(1)} %`;
    if (now.time === 0) strip.append(element("line", { x1: x, x2: x, y1: top, y2: 130, class: "begins" }));
    strip.append(element("rect", { x: x + 0.1 * side, y: bottom - height, width: 0.8 * side, height: height + 2, class: before.reward === 1 ? "bar rewarded" : "bar" }));
    strip.append(element("rect", { x, y: top, width: side, height: bottom - top, class: "hit", "data-tip": tip }));
  });
  strip.append(element("text", { x: width, y: 127, "text-anchor": "end" }, "now"), element("text", { x: 0, y: 127 }, `${model.context} steps ago`));
}

const drawModel = room(byId("room")), drawWalk = room(byId("walk"));

function show(withCurves) {
  drawModel(game.player);
  drawWalk(game.walk);
  drawStrip();
  byId("status").textContent = statusText();
  if (withCurves) game.curves.forEach(({ update }) => update());
}

// Take a number of steps, or those to the end of an episode, at once.
function advance(steps) {
  play(false);
  const { episodes } = game;
  for (let n = 0; steps ? n < steps : game.episodes === episodes; n++) step();
  show(true);
}

function play(on) {
  playing = on;
  due = 0;
  lastTime = performance.now();
  byId("toggle").textContent = on ? "Pause" : "Play";
  if (on) requestAnimationFrame(frame);
}

function frame(time) {
  if (!playing) return;
  const speed = Number(byId("speed").value), stop = performance.now() + FRAME;
  due = Math.min(due + (speed * Math.max(0, time - lastTime)) / 1000, speed / 4 + 1); // no burst after the page was hidden
  lastTime = time;
  for (; (speed ? due >= 1 : true) && performance.now() < stop; due = speed ? due - 1 : 0) step();
  const isDue = time - lastCurves > CURVE_PAUSE;
  if (isDue) lastCurves = time;
  show(isDue);
  requestAnimationFrame(frame);
}

function erase() {
  agent.forget();
  mark("the memory was erased");
}

// Mark the present episode in the curves.
function mark(text) {
  game.marks.push([Math.max(1, game.episodes + 0.5), text]);
  show(true);
}

function putGoal(cell) {
  if (world.goals[cell]) return begin(cell);
  byId("goal").textContent = `There is no goal in ${place(cell)}: ${NO_GOAL}.`;
}

function moveCursor(event) {
  if (event.key === "Enter" || event.key === " ") putGoal(cursor);
  else if (MOVES[event.key]) {
    const [down, right] = MOVES[event.key], row = Math.floor(cursor / COLUMNS) + down, column = (cursor % COLUMNS) + right;
    if (row < 0 || row >= ROWS || column < 0 || column >= COLUMNS) return event.preventDefault();
    cursor = row * COLUMNS + column;
    byId("goal").textContent = `Enter puts the goal into ${place(cursor)}${world.goals[cursor] ? `, ${kind(cursor)}` : `: not possible, ${NO_GOAL}`}.`;
    drawModel(game.player);
  } else return;
  event.preventDefault();
}

byId("head").append(element("option", { value: "" }, "all heads, their mean"));
for (const layer of range(model.layers)) for (const head of range(model.heads)) byId("head").append(element("option", { value: `${layer}.${head}` }, `head ${layer}.${head}`));
byId("head").addEventListener("change", drawStrip);
byId("room").addEventListener("keydown", moveCursor);
byId("room").addEventListener("blur", tellGoal);
for (const id of ["room", "walk"]) byId(id).addEventListener("click", (event) => event.target.dataset.cell && putGoal(Number(event.target.dataset.cell)));
byId("toggle").addEventListener("click", () => play(!playing));
byId("one").addEventListener("click", () => advance(1));
byId("episode").addEventListener("click", () => advance(0));
byId("erase").addEventListener("click", erase);
byId("again").addEventListener("click", () => begin(game.goal));
byId("forgets").addEventListener("change", () => mark(byId("forgets").checked ? "from here on the model forgets after each episode" : "from here on the model remembers"));
addEventListener("resize", drawStrip);
begin(world.first_goal);
