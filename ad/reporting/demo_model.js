"use strict";
// A frozen transformer and its dark room, as `ad.rollout` plays them, for one environment. This file needs no page.
//
// `model` has weights (float32 in base64), `tensors` (name -> [first number, count]), layers, heads, context (decisions in a window),
// greedy, temperature, temperature_known (null: the same), and position: the field of a decision that chooses a row of its table,
// "index" (in the window), "time" (in the episode) or "step" (since the memory was empty).
// `world` has successors ([cell][action] -> cell), starts (cells), goal_on_start, pays_once, terminate and episode_length.

const EPSILON = 1e-5; // torch.nn.LayerNorm
const NO_REWARD = 2; // row of the table of rewards, whose rows 0 and 1 are the rewards

// Uniform numbers in [0, 1): mulberry32, a generator with 32 bits of state.
function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let bits = Math.imul(state ^ (state >>> 15), 1 | state);
    bits = (bits + Math.imul(bits ^ (bits >>> 7), 61 | bits)) ^ bits;
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  };
}

// Write weight x + bias into y; weight has a row for each number of y. Four sums are 1.6 times as fast as one, each of whose additions
// waits for the one before.
function linear(weight, bias, x, y) {
  const whole = x.length - (x.length % 4);
  for (let row = 0, at = 0; row < y.length; row++) {
    let [a, b, c, d, n] = [bias[row], 0, 0, 0, 0];
    for (; n < whole; n += 4, at += 4) {
      a += weight[at] * x[n];
      b += weight[at + 1] * x[n + 1];
      c += weight[at + 2] * x[n + 2];
      d += weight[at + 3] * x[n + 3];
    }
    for (; n < x.length; n++) a += weight[at++] * x[n];
    y[row] = a + b + c + d;
  }
  return y;
}

function layerNorm(weight, bias, x, y) {
  let mean = 0, variance = 0;
  for (const value of x) mean += value / x.length;
  for (const value of x) variance += (value - mean) ** 2 / x.length;
  const scale = 1 / Math.sqrt(variance + EPSILON);
  for (let n = 0; n < x.length; n++) y[n] = (x[n] - mean) * scale * weight[n] + bias[n];
  return y;
}

// The error function to 1.5e-7: Abramowitz and Stegun 1964, 7.1.26.
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const sum = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return Math.sign(x) * (1 - sum * Math.exp(-x * x));
}

const gelu = (x) => 0.5 * x * (1 + erf(x * Math.SQRT1_2));

// Replace the first `count` numbers of x by their softmax.
function softmax(x, count) {
  let most = -Infinity, sum = 0;
  for (let n = 0; n < count; n++) most = Math.max(most, x[n]);
  for (let n = 0; n < count; n++) sum += x[n] = Math.exp(x[n] - most);
  for (let n = 0; n < count; n++) x[n] /= sum;
  return x;
}

// The blocks of `ad.models.memories`, with keys and values of the tokens read so far.
class Transformer {
  constructor(model) {
    const bytes = Uint8Array.from(atob(model.weights), (letter) => letter.charCodeAt(0)), all = new Float32Array(bytes.buffer);
    this.tensors = Object.fromEntries(Object.entries(model.tensors).map(([name, [at, count]]) => [name, all.subarray(at, at + count)]));
    this.layers = model.layers;
    this.heads = model.heads;
    this.width = this.tensors["ln_final.weight"].length;
    const vector = (count) => new Float32Array(count), each = (make) => Array.from({ length: model.layers }, make);
    this.keys = each(() => vector(model.context * this.width));
    this.values = each(() => vector(model.context * this.width));
    this.patterns = each(() => Array.from({ length: model.heads }, () => vector(model.context))); // of the last token
    this.hidden = each((_, layer) => vector(this.tensors[`blocks.${layer}.mlp.up.bias`].length));
    [this.normalized, this.mixed, this.added] = [0, 0, 0].map(() => vector(this.width));
    this.qkv = vector(3 * this.width);
  }

  // Return the hidden state of token number `at`, after those before it; `x` is changed.
  read(x, at) {
    for (let layer = 0; layer < this.layers; layer++) {
      const get = (name) => this.tensors[`blocks.${layer}.${name}`], map = (name, from, to) => linear(get(`${name}.weight`), get(`${name}.bias`), from, to);
      const norm = (name) => layerNorm(get(`${name}.weight`), get(`${name}.bias`), x, this.normalized);
      map("attn.qkv", norm("ln1"), this.qkv);
      this.keys[layer].set(this.qkv.subarray(this.width, 2 * this.width), at * this.width);
      this.values[layer].set(this.qkv.subarray(2 * this.width), at * this.width);
      this.attend(layer, at);
      map("attn.out", this.mixed, this.added).forEach((value, n) => (x[n] += value));
      const hidden = map("mlp.up", norm("ln2"), this.hidden[layer]);
      for (let n = 0; n < hidden.length; n++) hidden[n] = gelu(hidden[n]);
      map("mlp.down", hidden, this.added).forEach((value, n) => (x[n] += value));
    }
    return layerNorm(this.tensors["ln_final.weight"], this.tensors["ln_final.bias"], x, this.normalized);
  }

  // Write the values of tokens 0 to `at`, as each head weighs them, into `mixed`.
  attend(layer, at) {
    const size = this.width / this.heads, keys = this.keys[layer], values = this.values[layer];
    this.mixed.fill(0);
    for (let head = 0; head < this.heads; head++) {
      const pattern = this.patterns[layer][head], first = head * size;
      for (let token = 0; token <= at; token++) {
        let product = 0;
        for (let n = first; n < first + size; n++) product += this.qkv[n] * keys[token * this.width + n];
        pattern[token] = product / Math.sqrt(size);
      }
      softmax(pattern, at + 1);
      for (let token = 0; token <= at; token++)
        for (let n = first; n < first + size; n++) this.mixed[n] += pattern[token] * values[token * this.width + n];
    }
  }
}

// The policy of the model with its memory: a window of decisions, each after the transition before it. A full window drops its
// oldest half, and the rest is read again, as in `ad.methods.contexts.SlidingWindow`.
class Agent {
  constructor(model) {
    Object.assign(this, { model, transformer: new Transformer(model) });
    this.logits = new Float32Array(this.tensor("head.bias").length);
    this.token = new Float32Array(this.transformer.width);
    this.forget();
  }

  tensor(name) {
    return this.transformer.tensors[name];
  }

  // Empty the memory.
  forget() {
    Object.assign(this, { entries: [this.entry({})], numRead: 0, steps: 0 });
  }

  // An entry of the window; what is not known yet has the last row of its table.
  entry(known) {
    const last = (name) => this.tensor(name).length / this.transformer.width - 1;
    return { observation: last("now"), action: last("action"), reward: NO_REWARD, next: last("next"), ...known };
  }

  get length() {
    return this.entries.length - 1;
  }

  get rewardSeen() {
    return this.entries.some(({ reward }) => reward === 1);
  }

  // Return the probabilities of the actions; `logits` are the model's, without a temperature.
  decide(observation, time) {
    if (this.length === this.model.context) {
      this.entries = this.entries.slice(-1 - (this.model.context >> 1));
      this.numRead = 0;
    }
    this.entries.push(this.entry({ observation, time, step: this.steps++ }));
    let hidden;
    for (; this.numRead < this.length; this.numRead++) hidden = this.transformer.read(this.embed(this.numRead), this.numRead);
    linear(this.tensor("head.weight"), this.tensor("head.bias"), hidden, this.logits);
    if (this.model.greedy) return this.logits.map((value) => Number(value === Math.max(...this.logits)));
    const known = this.rewardSeen ? this.model.temperature_known : null, temperature = known ?? this.model.temperature;
    return softmax(this.logits.map((value) => value / temperature), this.logits.length);
  }

  observe(action, reward, next) {
    Object.assign(this.entries.at(-1), { action, reward, next });
  }

  // Return the token of decision `index` of the window: the decision, and the transition before it.
  embed(index) {
    const [before, now] = this.entries.slice(index, index + 2), { width } = this.transformer;
    const place = { index, ...now }[this.model.position], last = this.tensor("position").length / width - 1;
    const rows = { now: now.observation, position: Math.min(place, last), previous: before.observation };
    this.token.fill(0);
    for (const [name, row] of Object.entries({ ...rows, action: before.action, reward: before.reward, next: before.next }))
      for (let n = 0, at = row * width; n < width; n++) this.token[n] += this.tensor(name)[at++];
    return this.token;
  }
}

// A policy that walks at random, without a memory.
class Walker {
  constructor(numActions) {
    this.probabilities = new Float32Array(numActions).fill(1 / numActions);
  }

  decide() {
    return this.probabilities;
  }

  observe() {}
}

// Return the action at which the sum of the probabilities exceeds `u`, a number in [0, 1).
function sample(probabilities, u) {
  const total = probabilities.reduce((sum, value) => sum + value, 0);
  let action = 0;
  for (let sum = probabilities[0]; action < probabilities.length - 1 && u * total >= sum; sum += probabilities[action]) action++;
  return action;
}

// One episode after the other of a policy in a dark room (`envs.grid.dark_room`).
class Player {
  constructor(world, goal, policy, random) {
    Object.assign(this, { world, goal, policy, random });
    this.begin();
  }

  begin() {
    const starts = this.world.starts.filter((cell) => cell !== this.goal || this.world.goal_on_start);
    this.cell = starts[Math.floor(this.random() * starts.length)];
    Object.assign(this, { time: 0, total: 0, paid: false, over: false, path: [this.cell] });
  }

  decide() {
    return this.policy.decide(this.cell, this.time);
  }

  take(action) {
    const next = this.world.successors[this.cell][action], reached = next === this.goal;
    const reward = Number(reached && !(this.paid && this.world.pays_once));
    this.policy.observe(action, reward, next);
    this.cell = next;
    this.time += 1;
    this.total += reward;
    this.paid ||= reached;
    this.path.push(next);
    this.over = (reached && this.world.terminate) || this.time === this.world.episode_length;
    return reward;
  }

  // Take one step, the first of an episode if one has ended.
  step() {
    if (this.over) this.begin();
    this.take(sample(this.decide(), this.random()));
  }
}
