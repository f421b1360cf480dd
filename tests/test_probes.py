"""Probes: what is written at a layer is read there and after it, on tasks that no probe saw."""

import hand_made
import numpy as np
import pytest
import torch
from windows import labeled

from ad.interpret.analyses.probes import (
    EPISODE_BINS,
    PROBES,
    Decisions,
    activations,
    baseline_features,
    control_labels,
    past_rewards,
    probe_scores,
)

pytest.importorskip("sklearn")


def decisions(model, contexts) -> Decisions:
    """All decisions of `contexts`, with `found` as their label."""
    found = contexts.reward_seen[:, 1:].flatten()
    cell, episode = contexts.cell[:, 1:].flatten(), contexts.episode[:, 1:].flatten() + 1
    labels = {"found": found.astype(np.int64)}
    time = contexts.time[:, 1:].flatten()
    return Decisions(list(activations(model, contexts)), cell, episode, time, found, labels)


def test_a_reward_before_is_read_from_the_layer_that_looks_for_it(spec, random_window):
    model = hand_made.hand_made(spec, layers=3)
    hand_made.rewarded(model, 1, 0)
    reward = hand_made.block("reward")[hand_made.REWARD]
    hand_made.copies(model, 1, 0, [reward], [hand_made.block("other")[3]])
    of_seeds = []
    for seed in (0, 1):
        window = random_window(40, 12, seed)
        window["reward"][:, 1:] *= (window["action"][:, 1:] == 0).float()  # a reward in ten
        of_seeds.append(decisions(model, labeled(window, spec)))
    fit, held_out = of_seeds
    labels = [fit.labels["found"], held_out.labels["found"]]
    scores = [probe_scores(fit, held_out, labels, stage, "linear")[0] for stage in range(4)]
    assert max(scores[:2]) < 0.75 and min(scores[2:]) > 0.97


@pytest.mark.parametrize("kind", PROBES)
@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_a_score_is_that_of_its_decisions(kind, dtype):
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=1000).astype(dtype)
    told = np.where(np.arange(1000) < 500, labels, rng.integers(4, size=1000))
    known = np.eye(4)[labels.astype(int)], np.eye(4)[told.astype(int)]
    episode = np.where(np.arange(1000) < 500, 1, 5)
    fit, held_out = (
        Decisions([x], labels, episode, np.zeros(1000), episode == 1, {}) for x in known
    )
    everything, found, not_found, *bins = probe_scores(fit, held_out, [labels] * 2, 0, kind)
    assert found == pytest.approx(1, abs=0.05) and not_found < 0.4 and not_found < everything < 0.8
    by_bin = dict(zip(EPISODE_BINS, bins, strict=True))
    assert (by_bin.pop(1), by_bin.pop(4)) == (found, not_found)
    assert all(np.isnan(value) for value in by_bin.values())


def test_control_labels_are_a_function_of_the_observation():
    rng = np.random.default_rng(0)
    fit, held_out = (
        Decisions([], rng.integers(n, size=200), np.ones(200), np.ones(200), np.ones(200), {})
        for n in (30, 40)
    )
    controls = control_labels(fit, held_out, np.array([3, 7]), "goal")
    by_cell = {}
    for which, labels in zip((fit, held_out), controls, strict=True):
        assert set(labels) == {3, 7}
        for cell, label in zip(which.observation, labels, strict=True):
            assert by_cell.setdefault(cell, label) == label


def test_the_baseline_tells_what_follows_from_observation_episode_and_time():
    rng = np.random.default_rng(0)
    cell, time = rng.integers(30, size=500), rng.integers(9, size=500)
    own = Decisions([], cell, rng.integers(1, 5, size=500), time, time > 4, {})
    features = baseline_features(own, cell[:400])
    told = Decisions([features], own.observation, own.episode, time, own.reward_seen, {})
    by_cell, by_chance = (cell % 2).astype(np.int64), rng.integers(2, size=500)
    assert probe_scores(told, told, [by_cell] * 2, 0, "linear")[0] > 0.95
    assert probe_scores(told, told, [by_chance] * 2, 0, "linear")[0] < 0.75
    assert baseline_features(own, np.arange(2000)).shape == (500, 2)


def test_the_labels_of_past_rewards_are_those_counted_entry_by_entry(spec, random_window):
    window = random_window(1, 9, 0)
    window["time"][0, 1:] = torch.tensor([2, 0, 1, 2, 0, 0, 1, 0, 1])  # episodes of 3, 1 and 2
    window["reward"][0, 1:] = torch.tensor([0.0, 1, 0, 1, 0, 0, 0, 1, 0])
    since, returned = (labels[0, 1:] for labels in past_rewards(labeled(window, spec)).values())
    no = np.nan
    np.testing.assert_allclose(2**since, [no, no, 1, 2, 1, 2, 3, 4, 1])
    np.testing.assert_array_equal(returned, [no, no, no, no, 2, 0, 0, 0, 0])
    window["step"][0, 4:] += 5  # what lies between two entries was not kept
    since, returned = (labels[0, 1:] for labels in past_rewards(labeled(window, spec)).values())
    np.testing.assert_allclose(2 ** since[:4], [no, no, 1, 7])
    np.testing.assert_array_equal(returned, [no, no, no, no, no, 0, 0, 0, 0])
