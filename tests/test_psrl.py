"""Posterior sampling for reinforcement learning: its posterior, its plans and what it reaches."""

import numpy as np
import pytest
from recorded import played

from ad.collection.job import new_source
from ad.sources import psrl
from ad.sources.posterior_sampling import PosteriorSampling
from ad.sources.posterior_sampling import Settings as SamplingSettings
from ad.sources.psrl import PSRL, Settings, standard_gamma
from envs import make_vec


def agents(env_id="RandomMDP-v0", tasks=2, num_envs=3, limit=6, settings=None, **kwargs) -> PSRL:
    """Return agents on the first tasks of a family before their first step."""
    chosen = np.arange(tasks)[:, None]
    env = make_vec(env_id, chosen.repeat(num_envs, axis=0), limit, **kwargs)
    return PSRL(settings or Settings(), env, chosen, num_envs, list(range(11, 11 + tasks)))


@pytest.mark.parametrize("shape", [0.2, 0.9, 1.0, 3.5, 400.0])
def test_gamma_numbers_have_their_moments_and_depend_on_no_batch(shape):
    n = 40_000
    drawn = standard_gamma(np.uint64(5), np.arange(n), np.full(n, shape))
    assert drawn.mean() == pytest.approx(shape, abs=3 * (shape / n) ** 0.5)
    spread = (2 * shape**2 + 6 * shape) ** 0.5  # of the squared deviations
    assert drawn.var() == pytest.approx(shape, abs=3 * spread / n**0.5)
    alone = standard_gamma(np.uint64(5), np.array([777]), np.array([shape]))
    np.testing.assert_array_equal(alone, drawn[[777]])


@pytest.mark.parametrize("env_id", ["RandomMDP-v0", "StructuredMDP-v0"])
def test_the_posterior_counts_what_was_seen(env_id):
    source = agents(env_id)
    data = played(source, 300)
    counts, sums = np.zeros(source.counts.shape), np.zeros(source.reward_sums.shape)
    for t, k, n in np.ndindex(data["action"].shape):
        row = {name: values[t, k, n] for name, values in data.items()}
        pair = 3 * k + n, row["observation"], row["action"]
        counts[(*pair, -1 if row["terminated"] else row["next_observation"])] += 1
        sums[pair] += row["reward"]
    np.testing.assert_array_equal(source.counts, counts)
    np.testing.assert_allclose(source.reward_sums, sums, atol=1e-9)
    assert (counts[..., -1].sum() > 0) == (env_id == "StructuredMDP-v0")
    ends = (data["terminated"] | data["truncated"]).sum(0).ravel()
    np.testing.assert_array_equal(source.episodes, 1 + ends)


def test_samples_have_the_mean_and_the_variance_of_the_posterior():
    own = Settings(concentration=0.5, reward_mean=2.0, reward_sd=3.0, reward_noise=0.7)
    source = agents(tasks=1, num_envs=4000, settings=own, num_states=3, num_actions=1)
    source.counts[:, 0, 0] = [4, 1, 0, 2]
    source.reward_sums[:, 0, 0] = 10.0
    shapes = np.array([4.5, 1.5, 0.5, 2])
    mean = shapes / shapes.sum()
    drawn = source._sample_transitions(source.actor)[:, 0, 0]
    error = (mean * (1 - mean) / (shapes.sum() + 1) / 4000) ** 0.5
    assert (abs(drawn.mean(0) - mean) < 3 * error).all()
    assert source._sample_transitions(source.actor)[:, 1, 0, -1].max() == 0  # no termination seen
    precision = 1 / 9 + 7 / 0.49
    rewards = source._sample_rewards(source.actor)[:, 0, 0]
    mean = (2 / 9 + 10 / 0.49) / precision
    assert rewards.mean() == pytest.approx(mean, abs=3 * (1 / precision / 4000) ** 0.5)
    assert rewards.var() * precision == pytest.approx(1, abs=3 * (2 / 4000) ** 0.5)


def test_the_policy_is_optimal_in_the_sampled_mdp():
    source = agents()
    source.episodes[:] = 0  # as when the first plan was made
    transitions = source._sample_transitions(source.actor)[..., :-1]
    rewards = source._sample_rewards(source.actor)
    values = np.zeros((6, 10))
    for time in reversed(range(6)):
        of_actions = rewards + np.einsum("msat,mt->msa", transitions, values)
        np.testing.assert_array_equal(source.policy[:, time], of_actions.argmax(-1))
        values = of_actions.max(-1)


def test_with_several_samples_an_action_has_its_largest_value_in_one_of_them():
    one, several = agents(), agents(settings=Settings(samples=3))
    several.episodes[:] = 0  # as when the first plan was made
    values = [np.stack(list(several._sample_values(several.actor, i))) for i in range(3)]
    best = np.max(values, axis=0).argmax(-1)[::-1]  # [H, M, S], by the time of an episode
    np.testing.assert_array_equal(several.policy, best.swapaxes(0, 1))
    assert (several.policy != one.policy).any()


def test_no_two_samples_share_random_numbers():
    source, counters = agents(settings=Settings(samples=3)), []
    for episode in range(4):
        source.episodes[:] = episode
        counters += [source._counters(source.actor, (2, 5), sample) for sample in range(3)]
    per_life = np.stack(counters, axis=1).reshape(len(source.actor), -1)
    assert all(len(np.unique(numbers)) == 4 * 3 * 10 for numbers in per_life)


def test_an_actor_follows_one_plan_for_an_episode():
    source = agents()
    plan = source.policy.copy()
    data = played(source, 6)
    for t, k, n in np.ndindex(5, 2, 3):
        assert data["action"][t, k, n] == plan[3 * k + n, t, data["observation"][t, k, n]]
    assert (source.policy != plan).any()


def test_blocks_do_not_change_the_samples(monkeypatch):
    expected = played(agents(), 60)
    monkeypatch.setattr(psrl, "BLOCK", 1)
    for name, values in played(agents(), 60).items():
        np.testing.assert_array_equal(values, expected[name])


def test_the_prior_is_that_of_the_world_unless_settings_say_another():
    assert agents(reward_noise=0.5).prior["reward_noise"] == 0.5
    rooms = make_vec("DarkRoom-v0", [[0, 0]], 6)
    room = PSRL(Settings(), rooms, np.array([[0, 0]]), 1, [1])
    garnets = {"reward_mean": 0.0, "reward_sd": 1.0, "reward_noise": 0.1}
    assert agents("Garnet-v0").prior == {"concentration": 1.0} | garnets
    assert room.prior == psrl.DEFAULTS
    own = agents(settings=Settings(reward_mean=0.0), reward_noise=0.5).prior
    assert own == psrl.DEFAULTS | {"reward_mean": 0.0, "reward_noise": 0.5}


def test_rewards_without_noise_are_known_after_one_trial():
    source = agents(settings=Settings(reward_noise=0.0), reward_noise=0.0)
    data = played(source, 60)
    sampled = source._sample_rewards(source.actor).reshape(2, 3, 10, 5)
    tried = sampled[np.arange(2)[:, None], np.arange(3), data["observation"], data["action"]]
    np.testing.assert_allclose(tried, data["reward"], atol=0.01)


@pytest.mark.parametrize("env_id", ["FrozenLake-v1", "CliffWalking-v1"])
def test_psrl_plays_the_tables_of_gymnasium(smoke, tmp_path, env_id):
    tasks = "[{desc: [SFF, FHF, FFG]}, {desc: [SHF, FFF, FFG]}]"
    words = ["--env.id", env_id, "--env.kwargs", "{}", "--source.algorithm", "psrl"]
    words += ["--env.tasks", tasks if "Lake" in env_id else "[{}, {is_slippery: true}]"]
    words += ["--split.num_train_tasks", "1", "--model.encoder", "table"]
    config = smoke(tmp_path, *words, "--env.episode_length", "30")
    source = new_source(config, np.array([[0], [1]]))
    data = played(source, 100)
    assert source.horizon == 30
    assert data["terminated"].any() == (env_id == "FrozenLake-v1")
    assert data["observation"].max() > 1


def test_graphs_can_be_told_apart_by_the_source_that_drops_tasks():
    tasks = np.arange(4)[:, None]
    env = make_vec("GraphMDP-v0", tasks.repeat(5, axis=0), 24)
    source = PosteriorSampling(SamplingSettings(), env, tasks, 5, [1, 2, 3, 4])
    data = played(source, 48)
    assert (source.possible.sum(1) == 1).all()
    np.testing.assert_array_equal(source.sampled.reshape(4, 5), tasks.repeat(5, axis=1))
    best = env.unwrapped.optimal_return(tasks, 24)
    np.testing.assert_allclose(data["reward"][24:].sum(0), best[:, None].repeat(5, axis=1))
