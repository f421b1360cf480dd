"""Learners of bandits: their indices are the equations', and their scores the published ones."""

import math

import numpy as np
import pytest
from recorded import played
from scipy.stats import beta, norm
from source_words import BANDIT_SOURCES

from ad.collection.job import new_source
from ad.registry import SOURCES
from ad.sources.demonstrations import Demonstrations
from ad.sources.demonstrations import Settings as Entries
from ad.sources.thompson_sampling import Settings, ThompsonSampling
from ad.sources.ucb import UCB
from ad.sources.ucb import Settings as UCBSettings
from envs import make_base, make_vec
from envs.rng import derive_key, uniform

TASKS = np.array([[0], [3], [4]])
KEYS = [11, 12, 13]
FEWER = {"min_arms": 4, "arms": 20}
WORLDS = {
    "Bernoulli": ("BernoulliBandit-v0", {}),
    "Gaussian": ("GaussianBandit-v0", {}),
    "fewer arms": ("OddEvenBandit-v0", FEWER),
}


def learner(source, settings, env_id="BernoulliBandit-v0", tasks=TASKS, num_envs=4, length=5, **kw):
    """Return agents before their first pull."""
    env = make_vec(env_id, np.repeat(tasks, num_envs, axis=0), length, **kw)
    keys = KEYS if len(tasks) == len(KEYS) else list(range(len(tasks)))
    return source(settings, env, tasks, num_envs, keys)


def lives(data: dict[str, np.ndarray], arms: int, discount: float = 1):
    """Yield (k, n, step, action, counts, sums) before each pull of each life."""
    for k, n in np.ndindex(data["action"].shape[1:]):
        counts, sums = np.zeros(arms), np.zeros(arms)
        for step, action in enumerate(data["action"][:, k, n].tolist()):
            yield k, n, step, action, counts, sums
            counts, sums = counts * discount, sums * discount
            counts[action] += 1
            sums[action] += data["reward"][step, k, n]


def stream(k: int, n: int, step: int, arms: int) -> np.ndarray:
    """The numbers by which actor n of agent k draws from its posterior at a step."""
    key = derive_key(KEYS[k], "thompson_sampling", n)
    return uniform(np.uint64(key), step * arms + np.arange(arms))


@pytest.mark.parametrize(("exploration", "discount"), [(2.0, 1), (0.3, 1), (0.3, 0.9)])
def test_ucb_pulls_the_arm_with_the_highest_bound_of_the_equation(exploration, discount):
    data = played(learner(UCB, UCBSettings(exploration, discount), "GaussianBandit-v0"), 60)
    for _, _, _, action, counts, sums in lives(data, 5, discount):
        if (counts == 0).any():
            assert counts[action] == 0
        else:
            bound = [s / c + math.sqrt(exploration * math.log(counts.sum()) / c)
                     for s, c in zip(sums, counts, strict=True)]  # fmt: skip
            assert bound[action] == pytest.approx(max(bound))


@pytest.mark.parametrize("optimistic", [False, True])
def test_thompson_sampling_pulls_the_best_arm_of_a_draw_from_the_beta_posterior(optimistic):
    data = played(learner(ThompsonSampling, Settings(optimistic=optimistic)), 60)
    for k, n, step, action, counts, sums in lives(data, 5):
        drawn = beta.ppf(stream(k, n, step, 5), 1 + sums, 1 + counts - sums)
        if optimistic:
            drawn = np.maximum(drawn, (1 + sums) / (2 + counts))
        assert drawn[action] == pytest.approx(drawn.max())


@pytest.mark.parametrize("optimistic", [False, True])
@pytest.mark.parametrize("prior", [(0.5, 12.0), (-1.0, 0.01)])
def test_thompson_sampling_pulls_the_best_arm_of_a_draw_from_the_normal_posterior(
    prior, optimistic
):
    mean, precision = prior
    settings = Settings(*prior, optimistic)
    data = played(learner(ThompsonSampling, settings, "GaussianBandit-v0"), 40)
    for k, n, step, action, counts, sums in lives(data, 5):
        after = precision + counts / 0.3**2
        center = (precision * mean + sums / 0.3**2) / after
        drawn = norm.ppf(stream(k, n, step, 5), center, after**-0.5)
        if optimistic:
            drawn = np.maximum(drawn, center)
        assert drawn[action] == pytest.approx(drawn.max())


@pytest.mark.parametrize("source", [ThompsonSampling, UCB])
def test_with_a_flat_prior_each_arm_is_pulled_once_first_in_random_order(source):
    data = played(learner(source, source.Settings(), "GaussianBandit-v0", num_envs=400), 5)
    actions = data["action"].reshape(5, -1)
    assert (np.sort(actions, axis=0) == np.arange(5)[:, None]).all()
    share = np.stack([np.bincount(row, minlength=5) / row.size for row in actions])
    np.testing.assert_allclose(share, 0.2, atol=4 * math.sqrt(0.16 / actions.shape[1]))


@pytest.mark.parametrize("name", BANDIT_SOURCES)
@pytest.mark.parametrize("kind", WORLDS)
def test_only_arms_that_a_task_has_are_pulled_and_all_of_them(name, kind):
    env_id, kwargs = WORLDS[kind]
    oracle = make_base(env_id, **kwargs)
    tasks = oracle.all_tasks()[[0, 3, 4]]
    source = SOURCES.load(name)
    data = played(learner(source, source.Settings(), env_id, tasks, **kwargs), 200)
    mask = oracle.action_mask(tasks)
    for k in range(3):
        own = np.arange(oracle.arms) if mask is None else np.flatnonzero(mask[k])
        np.testing.assert_array_equal(np.unique(data["action"][:, k]), own)


def chosen(name: str, env_id: str, kwargs: dict) -> list[str]:
    pairs = ", ".join(f"{key}: {value}" for key, value in kwargs.items())
    return ["--source.algorithm", name, "--env.id", env_id, "--env.kwargs", f"{{{pairs}}}"]


@pytest.fixture(params=[(name, kind) for name in BANDIT_SOURCES for kind in WORLDS], ids=str)
def config(request, smoke, tmp_path):
    """config(*words): an experiment with each learner and each kind of bandit."""
    name, kind = request.param
    return lambda *words: smoke(tmp_path, *chosen(name, *WORLDS[kind]), *words)


def tasks_of(config) -> np.ndarray:
    return make_base(config.env.id, **config.env.kwargs).all_tasks()[[0, 3, 4]]


def test_a_task_has_the_same_history_alone_as_among_others(config):
    tasks = tasks_of(config())
    together, alone = (played(new_source(config(), some), 60) for some in (tasks, tasks[[1]]))
    for name, values in alone.items():
        np.testing.assert_array_equal(together[name][:, [1]], values)


@pytest.mark.parametrize("kind", WORLDS)
def test_demonstrations_play_bandits_at_random_and_optimally(kind):
    env_id, kwargs = WORLDS[kind]
    oracle = make_base(env_id, **kwargs)
    tasks = oracle.all_tasks()[[0, 3, 4]]
    means, mask = oracle.means(tasks), oracle.action_mask(tasks)
    entries = [{"policy": "optimal", "share": 0.5}, {"act": "random", "share": 0.5}]
    source = learner(Demonstrations, Entries(entries), env_id, tasks, 40, **kwargs)
    actions = played(source, 100)["action"]
    for k in range(3):
        by_entry = [actions[:, k, source.entry_of_actor == entry] for entry in (0, 1)]
        assert (by_entry[0] == np.nanargmax(means[k])).all()
        share = np.bincount(by_entry[1].ravel(), minlength=oracle.arms) / by_entry[1].size
        has = np.ones(oracle.arms) if mask is None else mask[k]
        np.testing.assert_allclose(share, has / has.sum(), atol=4 * math.sqrt(0.2 / 2000))
