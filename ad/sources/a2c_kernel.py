"""One A2C update of each agent, compiled: loss, gradient, clip, Adam and the new policy table.

The network is embedding -> layer normalization -> tanh -> linear (A logits and a value), over S
numbered observations. The P parameters of an agent are one flat float32 row: embedding [S, H],
scale [H], shift [H], weight [A+1, H], bias [A+1]. The loss of M = T N samples is

    mean( -log π(a|s) (G - V(s)) - β H(π(·|s)) + c (G - V(s))² )    (Mnih et al. 2016, section 4)

so its gradient needs one pass per *visited* observation. Agents share no array that is written, so
the bits of one depend neither on the others nor on the number of threads. tests/test_a2c.py
compares the kernel with torch's autograd, clip_grad_norm_ and Adam.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from ad.runtime.parallel import NUMBA_ENTRY, NUMBA_INLINE, parallel_for

# Without `fastmath`, which only the helpers have: their sums may be vectorized.
_ENTRY: dict[str, Any] = NUMBA_ENTRY | {"fastmath": False}
_EPS = np.float32(1e-5)  # epsilon of layer normalization, torch's default
_ONE, _ZERO = np.float32(1), np.float32(0)
_MAX_FLOAT32 = np.finfo(np.float32).max
_TANH_LIMIT = np.float32(9)  # beyond it tanh is ±1
# Coefficients of Lambert's continued fraction of tanh, cut after nine terms, by powers of x ** 2
_TANH_NUMERATOR = tuple(np.float32(c) for c in (34459425, 4729725, 135135, 990))
_TANH_DENOMINATOR = tuple(np.float32(c) for c in (34459425, 16216200, 945945, 13860, 45))


class Table(NamedTuple):
    """Policies and values of K agents at all S observations, float32."""

    probabilities: np.ndarray  # [K, S, A]
    cumulative: np.ndarray  # [K, S, A], cumulative sums of the probabilities
    values: np.ndarray  # [K, S]


class UpdateSettings(NamedTuple):
    """Settings of the loss, the clip and Adam; a Python float would make the kernel use float64."""

    learning_rate: np.float32
    entropy_coefficient: np.float32
    value_coefficient: np.float32
    gradient_norm: np.float32  # the largest, beyond which the gradient is clipped
    beta1: np.float32
    beta2: np.float32
    epsilon: np.float32


def update_settings(settings) -> UpdateSettings:
    """Return the `UpdateSettings` with the values of the attributes of `settings`."""
    return UpdateSettings(*(np.float32(getattr(settings, n)) for n in UpdateSettings._fields))


def empty_table(num_agents: int, states: int, actions: int) -> Table:
    """Return an uninitialized table, for `fill_table` to fill."""
    shape = (num_agents, states, actions)
    return Table(
        np.empty(shape, np.float32), np.empty(shape, np.float32), np.empty(shape[:2], np.float32)
    )


@njit(forceinline=True)
def _is_finite(x):
    """Return whether `x` is finite, also under `fastmath`.

    np.isfinite tests whether x - x is 0, which a compiler that may reorder sums assumes.
    """
    return abs(x) <= _MAX_FLOAT32


@njit(**NUMBA_INLINE)
def _tanh(x):
    """Return tanh(x) to 1e-5, by arithmetic that LLVM can vectorize."""
    x = min(max(x, -_TANH_LIMIT), _TANH_LIMIT)
    x2, p, q = x * x, _TANH_NUMERATOR, _TANH_DENOMINATOR
    numerator = x * (p[0] + x2 * (p[1] + x2 * (p[2] + x2 * (p[3] + x2))))
    denominator = q[0] + x2 * (q[1] + x2 * (q[2] + x2 * (q[3] + x2 * q[4])))
    return min(max(numerator / denominator, -_ONE), _ONE)


@njit(**NUMBA_INLINE)
def _unflatten(flat, states, hidden, outputs):
    """Return views of `flat` [P]: embedding [S, H], scale, shift, weight [A+1, H], bias [A+1]."""
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


@njit(**NUMBA_INLINE)
def _features(row, scale, shift, normal, feature):
    """Compute the features of an embedding `row` [H]; return 1 / its standard deviation.

    Fills `normal` [H], the row with mean 0 and variance 1, and `feature` [H], after tanh.
    """
    hidden = row.size
    mean = _ZERO
    for j in range(hidden):
        mean += row[j]
    mean /= np.float32(hidden)
    variance = _ZERO
    for j in range(hidden):
        variance += (row[j] - mean) * (row[j] - mean)
    inverse_std = _ONE / np.sqrt(variance / np.float32(hidden) + _EPS)
    for j in range(hidden):
        normal[j] = (row[j] - mean) * inverse_std
    for j in range(hidden):
        feature[j] = _tanh(normal[j] * scale[j] + shift[j])
    return inverse_std


@njit(**NUMBA_INLINE)
def _fill_agent(flat, hidden, probabilities, cumulative, values):
    """Fill the table of one agent from its `flat` parameters [P]."""
    states, actions = probabilities.shape
    embedding, scale, shift, weight, bias = _unflatten(flat, states, hidden, actions + 1)
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
        max_logit = logits[:actions].max()
        total = _ZERO
        for a in range(actions):
            probabilities[s, a] = np.exp(logits[a] - max_logit)
            total += probabilities[s, a]
        running = _ZERO
        for a in range(actions):
            probabilities[s, a] /= total
            running += probabilities[s, a]
            cumulative[s, a] = running


@njit(**NUMBA_INLINE)
def _output_gradient(probabilities, values, observations, actions, returns, settings, gradient):
    """Add d loss / d (logits, value) to `gradient` [S, A+1]; return entropy and squared error.

    Both are means over the samples: the entropy in nats and the squared error of the values.
    """
    weight = _ONE / np.float32(observations.size)
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
            is_taken = _ONE if a == actions[i] else _ZERO
            surprise = np.log(p + np.float32(1e-20)) + entropy
            d_logit = error * (p - is_taken) + settings.entropy_coefficient * p * surprise
            gradient[s, a] += weight * d_logit
        gradient[s, outputs - 1] -= weight * np.float32(2) * settings.value_coefficient * error
        total_entropy += entropy * weight
        total_error += error * error * weight
    return total_entropy, total_error


@njit(**NUMBA_INLINE)
def _backward(flat, hidden, outputs, d_outputs, gradient):
    """Compute the gradient of the parameters from `d_outputs` [S, A+1], d loss / d outputs.

    `gradient` [P] is zeros at first. Observations whose row of `d_outputs` is 0 are skipped.
    """
    states = d_outputs.shape[0]
    embedding, scale, shift, weight, _ = _unflatten(flat, states, hidden, outputs)
    d_embedding, d_scale, d_shift, d_weight, d_bias = _unflatten(gradient, states, hidden, outputs)
    normal, feature = np.empty(hidden, np.float32), np.empty(hidden, np.float32)
    d_normal = np.empty(hidden, np.float32)
    for s in range(states):
        if not np.any(d_outputs[s]):
            continue
        inverse_std = _features(embedding[s], scale, shift, normal, feature)
        d_normal[:] = _ZERO
        for a in range(outputs):
            g = d_outputs[s, a]
            d_bias[a] += g
            for j in range(hidden):
                d_weight[a, j] += g * feature[j]
                d_normal[j] += g * weight[a, j]
        d_mean, d_slope = _ZERO, _ZERO
        for j in range(hidden):
            d = d_normal[j] * (_ONE - feature[j] * feature[j])
            d_shift[j] += d
            d_scale[j] += d * normal[j]
            d_normal[j] = d * scale[j]
            d_mean += d_normal[j]
            d_slope += d_normal[j] * normal[j]
        d_mean /= np.float32(hidden)
        d_slope /= np.float32(hidden)
        for j in range(hidden):
            d_embedding[s, j] = inverse_std * (d_normal[j] - d_mean - normal[j] * d_slope)


@njit(**NUMBA_INLINE)
def _adam(flat, first_moment, second_moment, gradient, updates, settings):
    """Clip `gradient` [P] by its norm, take one Adam step (Kingma and Ba 2015), return the norm.

    If the norm is not finite, nothing changes.
    """
    square = _ZERO
    for i in range(flat.size):
        square += gradient[i] * gradient[i]
    norm = np.sqrt(square)
    if not _is_finite(norm):
        return norm
    clip = min(_ONE, settings.gradient_norm / (norm + np.float32(1e-6)))
    b1, b2 = settings.beta1, settings.beta2
    rate = np.float32(settings.learning_rate / (1.0 - np.float64(b1) ** updates))
    root_correction = np.float32(1.0 / np.sqrt(1.0 - np.float64(b2) ** updates))
    for i in range(flat.size):
        g = gradient[i] * clip
        m = b1 * first_moment[i] + (_ONE - b1) * g
        v = b2 * second_moment[i] + (_ONE - b2) * g * g
        first_moment[i], second_moment[i] = m, v
        flat[i] -= rate * m / (np.sqrt(v) * root_correction + settings.epsilon)
    return norm


def fill_table(parameters, hidden, table):
    """Fill `table` from `parameters` [K, P] of networks with `hidden` features."""
    data = (parameters, hidden, table)
    parallel_for(len(parameters), lambda *part: _fill_agents(*part, *data))


@njit(**_ENTRY)
def _fill_agents(first, stop, parameters, hidden, table):
    """Fill `table` for the agents `first` to `stop`."""
    for k in range(first, stop):
        _fill_agent(
            parameters[k], hidden, table.probabilities[k], table.cumulative[k], table.values[k]
        )


@njit(forceinline=True)
def _table_is_finite(probabilities, values):
    """Return whether an agent's table is finite.

    A non-finite embedding of an observation that was not visited shows in the next gradient.
    """
    for s in range(values.size):
        if not _is_finite(values[s]):
            return False
        for a in range(probabilities.shape[1]):
            if not _is_finite(probabilities[s, a]):
                return False
    return True


def update(parameters, moments, stopped, hidden, table, samples, returns, updates, settings):
    """Update `parameters` [K, P], Adam's `moments` [2, K, P] and `table` in place.

    `samples` (observations and actions) and `returns` are [T, K, N]; `updates` counts from 1.
    Returns float32 [K, 3]: entropy (nats), squared value error, gradient norm before the clip.

    An agent whose loss, gradient or new table is not finite is marked in `stopped`, bool [K]. It
    keeps its previous table, is never updated again, and its statistics are NaN.
    """
    statistics = np.empty((len(parameters), 3), np.float32)
    agents = (parameters, moments, stopped, hidden, table)
    data = (agents, samples, returns, updates, settings, statistics)
    parallel_for(len(parameters), lambda *part: _update(*part, *data))
    return statistics


@njit(**_ENTRY)
def _update(first, stop, agents, samples, returns, updates, settings, statistics):
    """Update the agents `first` to `stop` as in `update`, and fill their `statistics`."""
    parameters, moments, stopped, hidden, table = agents
    observations, actions = samples
    outputs = table.probabilities.shape[2] + 1
    for k in range(first, stop):
        statistics[k] = np.nan
        if stopped[k]:
            continue
        p, c, v = table.probabilities[k], table.cumulative[k], table.values[k]
        d_outputs = np.zeros((p.shape[0], outputs), np.float32)
        gradient = np.zeros(parameters.shape[1], np.float32)
        entropy, error = _output_gradient(
            p,
            v,
            np.ascontiguousarray(observations[:, k]).ravel(),
            np.ascontiguousarray(actions[:, k]).ravel(),
            np.ascontiguousarray(returns[:, k]).ravel(),
            settings,
            d_outputs,
        )
        _backward(parameters[k], hidden, outputs, d_outputs, gradient)
        before = p.copy(), c.copy(), v.copy()
        norm = _adam(parameters[k], moments[0, k], moments[1, k], gradient, updates, settings)
        _fill_agent(parameters[k], hidden, p, c, v)
        if _is_finite(entropy + error + norm) and _table_is_finite(p, v):
            statistics[k, 0], statistics[k, 1], statistics[k, 2] = entropy, error, norm
        else:
            stopped[k] = True
            p[:], c[:], v[:] = before
