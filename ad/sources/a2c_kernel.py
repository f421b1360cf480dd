"""One A2C update of each agent, compiled: loss, gradient, clip, Adam and the new policy table.

The network is embedding -> layer normalisation -> tanh -> linear (A logits and a value), over S
discrete observations; its parameters lie flat in one float32 row an agent: embedding [S, H], scale
[H], shift [H], weight [A+1, H], bias [A+1]. The loss of M samples is

    mean( -log π(a|s) (G - V(s)) - β H(π(·|s)) + c (G - V(s))² )    (Mnih et al. 2016, section 4)

so its gradient needs one pass per *visited* observation. Agents share nothing, and each has its own
settings: that is what makes the bits of one independent of the others and of the number of threads.
tests/test_a2c.py holds the kernel against torch's autograd, clip and Adam.
"""

from typing import NamedTuple

import numba
import numpy as np
from numba import njit

from ad.runtime.parallel import HELPER, LOOP, share_out

# Without `fastmath`, but for the helpers: what they sum may vectorise.
_LOOP = LOOP | {"fastmath": False}
_EPS = np.float32(1e-5)  # of the layer normalisation, torch's default
_ONE, _ZERO, _FAR = np.float32(1), np.float32(0), np.float32(9)
_LARGEST = np.finfo(np.float32).max
_TOP = tuple(np.float32(c) for c in (34459425, 4729725, 135135, 990))
_LOW = tuple(np.float32(c) for c in (34459425, 16216200, 945945, 13860, 45))


class Table(NamedTuple):
    """What acting needs of K agents at all S observations, float32."""

    probabilities: np.ndarray  # [K, S, A]
    cumulative: np.ndarray  # [K, S, A]
    values: np.ndarray  # [K, S]


class Optimiser(NamedTuple):
    """The settings of an update, float32 [K]; of one agent's update, scalars."""

    learning_rate: np.ndarray
    entropy_coefficient: np.ndarray
    value_coefficient: np.ndarray
    gradient_norm: np.ndarray
    beta1: np.ndarray
    beta2: np.ndarray
    epsilon: np.ndarray


def empty_table(num_agents: int, states: int, actions: int) -> Table:
    """A table to be filled by `evaluate`."""
    shape = (num_agents, states, actions)
    return Table(
        np.empty(shape, np.float32), np.empty(shape, np.float32), np.empty(shape[:2], np.float32)
    )


@njit(forceinline=True)
def of_agent(optimiser, k):
    """The settings of agent `k` of those of all agents."""
    return Optimiser(
        optimiser.learning_rate[k],
        optimiser.entropy_coefficient[k],
        optimiser.value_coefficient[k],
        optimiser.gradient_norm[k],
        optimiser.beta1[k],
        optimiser.beta2[k],
        optimiser.epsilon[k],
    )


@njit(forceinline=True)
def _is_number(x):
    # np.isfinite asks whether x - x is 0, which a compiler that may reorder sums takes for granted.
    return abs(x) <= _LARGEST


@njit(**HELPER)
def _tanh(x):
    # Lambert's continued fraction, cut after nine terms: within 1e-5 of tanh, and it vectorises.
    x = min(max(x, -_FAR), _FAR)
    x2 = x * x
    top = x * (_TOP[0] + x2 * (_TOP[1] + x2 * (_TOP[2] + x2 * (_TOP[3] + x2))))
    low = _LOW[0] + x2 * (_LOW[1] + x2 * (_LOW[2] + x2 * (_LOW[3] + x2 * _LOW[4])))
    return min(max(top / low, -_ONE), _ONE)


@njit(**HELPER)
def _views(flat, states, hidden, outputs):
    """Embedding [S, H], scale [H], shift [H], weight [A+1, H], bias [A+1] of one flat row."""
    a = states * hidden
    b = a + 2 * hidden
    c = b + outputs * hidden
    embedding = flat[:a].reshape(states, hidden)
    return (
        embedding,
        flat[a : a + hidden],
        flat[a + hidden : b],
        flat[b:c].reshape(outputs, hidden),
        flat[c:],
    )


@njit(**HELPER)
def _features(row, scale, shift, normal, feature):
    """Fill `normal` (mean 0, variance 1) and `feature` (tanh) of a row; 1 / its deviation."""
    hidden = row.size
    mean = _ZERO
    for j in range(hidden):
        mean += row[j]
    mean /= np.float32(hidden)
    variance = _ZERO
    for j in range(hidden):
        variance += (row[j] - mean) * (row[j] - mean)
    inverse = _ONE / np.sqrt(variance / np.float32(hidden) + _EPS)
    for j in range(hidden):
        normal[j] = (row[j] - mean) * inverse
    for j in range(hidden):
        feature[j] = _tanh(normal[j] * scale[j] + shift[j])
    return inverse


@njit(**HELPER)
def _evaluate_agent(flat, hidden, probabilities, cumulative, values):
    states, actions = probabilities.shape
    embedding, scale, shift, weight, bias = _views(flat, states, hidden, actions + 1)
    normal, feature = np.empty(hidden, np.float32), np.empty(hidden, np.float32)
    logits = np.empty(actions + 1, np.float32)
    for s in range(states):
        _features(embedding[s], scale, shift, normal, feature)
        for a in range(actions + 1):
            total = _ZERO
            for j in range(hidden):
                total += feature[j] * weight[a, j]
            logits[a] = total + bias[a]
        values[s] = logits[actions]
        highest = logits[:actions].max()
        total = _ZERO
        for a in range(actions):
            probabilities[s, a] = np.exp(logits[a] - highest)
            total += probabilities[s, a]
        running = _ZERO
        for a in range(actions):
            probabilities[s, a] /= total
            running += probabilities[s, a]
            cumulative[s, a] = running


@njit(**HELPER)
def _output_gradient(probabilities, values, observations, actions, returns, optimiser, gradient):
    """Add up d loss / d (logits, value) by observation; (entropy, squared value error)."""
    count = _ONE / np.float32(observations.size)
    outputs = gradient.shape[1]
    total_entropy, total_error = _ZERO, _ZERO
    for i in range(observations.size):
        s = observations[i]
        error = returns[i] - values[s]
        entropy = _ZERO
        for a in range(outputs - 1):
            entropy -= probabilities[s, a] * np.log(probabilities[s, a] + np.float32(1e-20))
        for a in range(outputs - 1):
            p = probabilities[s, a]
            taken = _ONE if a == actions[i] else _ZERO
            surprise = np.log(p + np.float32(1e-20)) + entropy
            step = error * (p - taken) + optimiser.entropy_coefficient * p * surprise
            gradient[s, a] += count * step
        gradient[s, outputs - 1] -= count * np.float32(2) * optimiser.value_coefficient * error
        total_entropy += entropy * count
        total_error += error * error * count
    return total_entropy, total_error


@njit(**HELPER)
def _back_propagate(flat, hidden, outputs, d_outputs, gradient):
    """Fill `gradient` (flat, zeroed) from d loss / d outputs [S, A+1], skipping zero rows."""
    states = d_outputs.shape[0]
    embedding, scale, shift, weight, _ = _views(flat, states, hidden, outputs)
    d_embedding, d_scale, d_shift, d_weight, d_bias = _views(gradient, states, hidden, outputs)
    normal, feature = np.empty(hidden, np.float32), np.empty(hidden, np.float32)
    d_normal = np.empty(hidden, np.float32)
    for s in range(states):
        if not np.any(d_outputs[s]):
            continue
        inverse = _features(embedding[s], scale, shift, normal, feature)
        d_normal[:] = _ZERO
        for a in range(outputs):
            g = d_outputs[s, a]
            d_bias[a] += g
            for j in range(hidden):
                d_weight[a, j] += g * feature[j]
                d_normal[j] += g * weight[a, j]
        mean, slope = _ZERO, _ZERO
        for j in range(hidden):
            d = d_normal[j] * (_ONE - feature[j] * feature[j])
            d_shift[j] += d
            d_scale[j] += d * normal[j]
            d_normal[j] = d * scale[j]
            mean += d_normal[j]
            slope += d_normal[j] * normal[j]
        mean /= np.float32(hidden)
        slope /= np.float32(hidden)
        for j in range(hidden):
            d_embedding[s, j] = inverse * (d_normal[j] - mean - normal[j] * slope)


@njit(**HELPER)
def _adam(flat, first, second, gradient, updates, optimiser):
    """Clip by the norm of the agent's whole gradient, then Adam (Kingma and Ba 2015); the norm.

    Nothing is changed where the norm is not finite.
    """
    square = _ZERO
    for i in range(flat.size):
        square += gradient[i] * gradient[i]
    norm = np.sqrt(square)
    if not _is_number(norm):
        return norm
    clip = min(_ONE, optimiser.gradient_norm / (norm + np.float32(1e-6)))
    b1, b2 = optimiser.beta1, optimiser.beta2
    rate = np.float32(optimiser.learning_rate / (1.0 - np.float64(b1) ** updates))
    root = np.float32(1.0 / np.sqrt(1.0 - np.float64(b2) ** updates))
    for i in range(flat.size):
        g = gradient[i] * clip
        m = b1 * first[i] + (_ONE - b1) * g
        v = b2 * second[i] + (_ONE - b2) * g * g
        first[i], second[i] = m, v
        flat[i] -= rate * m / (np.sqrt(v) * root + optimiser.epsilon)
    return norm


def evaluate(parameters, hidden, table):
    """Fill `table` from `parameters` [K, P]."""
    data = (parameters, hidden, table)
    share_out(len(parameters), numba.get_num_threads(), lambda *share: _evaluate(*share, *data))


@njit(**_LOOP)
def _evaluate(first, stop, parameters, hidden, table):
    for k in range(first, stop):
        _evaluate_agent(
            parameters[k], hidden, table.probabilities[k], table.cumulative[k], table.values[k]
        )


@njit(forceinline=True)
def _holds_numbers(probabilities, values):
    """Whether an agent's new table is finite; a broken embedding shows in its next gradient."""
    for s in range(values.size):
        if not _is_number(values[s]):
            return False
        for a in range(probabilities.shape[1]):
            if not _is_number(probabilities[s, a]):
                return False
    return True


def update(parameters, moments, stopped, hidden, table, samples, returns, updates, optimiser):
    """Update `parameters` [K, P], Adam's `moments` [2, K, P] and `table` in place.

    `samples`: (observations, actions), and `returns`, are [M, K, E]; `updates` counts from 1.
    Returns float32 [K, 3]: entropy (nats), squared value error, gradient norm before the clip.

    An agent whose loss, gradient or new table is not finite is marked in `stopped`, bool [K]. It
    keeps the table that it had, is never updated again, and its statistics are NaN.
    """
    statistics = np.empty((len(parameters), 3), np.float32)
    learned = (parameters, moments, stopped, hidden, table)
    data = (*learned, samples, returns, updates, optimiser, statistics)
    share_out(len(parameters), numba.get_num_threads(), lambda *share: _update(*share, *data))
    return statistics


@njit(**_LOOP)
def _update(
    first,
    stop,
    parameters,
    moments,
    stopped,
    hidden,
    table,
    samples,
    returns,
    updates,
    optimiser,
    statistics,
):
    observations, actions = samples
    outputs = table.probabilities.shape[2] + 1
    for k in range(first, stop):
        statistics[k] = np.nan
        if stopped[k]:
            continue
        own = of_agent(optimiser, k)
        p, c, v = table.probabilities[k], table.cumulative[k], table.values[k]
        d_outputs = np.zeros((p.shape[0], outputs), np.float32)
        gradient = np.zeros(parameters.shape[1], np.float32)
        entropy, error = _output_gradient(
            p,
            v,
            np.ascontiguousarray(observations[:, k]).ravel(),
            np.ascontiguousarray(actions[:, k]).ravel(),
            np.ascontiguousarray(returns[:, k]).ravel(),
            own,
            d_outputs,
        )
        _back_propagate(parameters[k], hidden, outputs, d_outputs, gradient)
        before = p.copy(), c.copy(), v.copy()
        norm = _adam(parameters[k], moments[0, k], moments[1, k], gradient, updates, own)
        _evaluate_agent(parameters[k], hidden, p, c, v)
        if _is_number(entropy + error + norm) and _holds_numbers(p, v):
            statistics[k, 0], statistics[k, 1], statistics[k, 2] = entropy, error, norm
        else:
            stopped[k] = True
            p[:], c[:], v[:] = before
