"""A release: it plays as the model was evaluated, any change to it is noticed, it holds no code."""

import shutil
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

import envs
from ad.data.spec import make_spec
from ad.errors import ConfigError, CorruptError
from ad.evaluation.evaluate import load_model
from ad.exchange.policy import ReleasedPolicy
from ad.exchange.recorded import RecordedWorld
from ad.exchange.release import EVAL_RESULTS, FILES, SUMS, load_release, release
from ad.methods import build_method
from ad.rollout.rollout import greedy, rollout
from ad.rollout.tasks import policy_of, selection_of
from ad.runtime.files import read_checked_json, sha256
from ad.runtime.run import Run

SEEDS, EPISODES = [0, 1, 2], 6


@pytest.fixture(scope="module")
def folder(evaluated):
    """The folder of its release; only to be read."""
    return release(evaluated)


@pytest.fixture
def policy(folder) -> ReleasedPolicy:
    return load_release(folder)


@pytest.fixture
def played(evaluated, policy):
    """played(select) returns the returns [N, E] of a rollout of the model on three tasks."""

    def play(select=None) -> np.ndarray:
        config = policy.config
        new_policy = policy_of(config, build_method(config.method), policy.model)
        select = select or selection_of(config.evaluation)
        vec_env = envs.make_vec(**world(evaluated))
        return rollout(new_policy(len(SEEDS)), vec_env, SEEDS, EPISODES, select).returns

    return play


def world(run) -> dict:
    """The arguments of `envs.make_vec` for three held-out tasks."""
    config = run.config.env
    tasks = run.split.held_out_tasks[: len(SEEDS)]
    return {
        **{"env_id": config.id, "tasks": tasks, "episode_length": config.episode_length},
        **config.kwargs,
    }


def single_envs(run) -> list:
    arguments = world(run)
    return [envs.make(**{**arguments, "goal": goal}) for goal in arguments.pop("tasks").tolist()]


def returns_of(steps: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The returns [N, E] of the first episodes, from the rewards and the ends of all steps."""
    rewards, done = (np.array(values).T for values in zip(*steps, strict=True))
    episode = np.cumsum(done, axis=1) - done
    return np.stack(
        [
            [own[number == e].sum() for e in range(EPISODES)]
            for own, number in zip(rewards, episode, strict=True)
        ]
    )


def test_it_plays_as_the_evaluation_does(evaluated, policy, played):
    vec_env, steps = envs.make_vec(**world(evaluated)), []
    policy.reset(SEEDS)
    observation, _ = vec_env.reset(seed=0)
    for _ in range(EPISODES * evaluated.config.env.episode_length):
        action = policy.act(observation)
        observation, reward, terminated, truncated, info = vec_env.step(action)
        policy.observe(reward, terminated, truncated, info.get("final_obs", observation))
        steps.append((reward, terminated | truncated))
    np.testing.assert_array_equal(returns_of(steps), played())


def test_it_plays_in_a_single_environment(evaluated, policy, played):
    env, returns = single_envs(evaluated)[0], np.zeros(EPISODES)
    policy.reset()
    for episode in range(EPISODES):
        (observation, _), done = env.reset(), False
        while not done:
            action = policy.act(observation)
            assert type(action) is int
            observation, reward, terminated, truncated, _ = env.step(action)
            policy.observe(reward, terminated, truncated, observation)
            returns[episode] += reward
            done = terminated or truncated
    np.testing.assert_array_equal(returns, played()[0])


def test_an_episode_may_be_longer_than_those_of_the_histories(evaluated, policy):
    (observation, _), _ = single_envs(evaluated)[0].reset(), policy.reset()
    for _ in range(3 * evaluated.config.env.episode_length):
        policy.act(observation)
        policy.observe(0.0, False, False, observation)


@pytest.mark.parametrize("deterministic", [True, False])
def test_stable_baselines3_evaluates_it(evaluated, policy, played, deterministic):
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import DummyVecEnv

    vec_env = DummyVecEnv([lambda env=env: Monitor(env) for env in single_envs(evaluated)])
    model = policy.sb3_model(vec_env)
    mean, deviation = evaluate_policy(
        model, model.env, len(SEEDS) * EPISODES, deterministic=deterministic
    )
    returns = played(greedy if deterministic else None)
    assert (mean, deviation) == pytest.approx((returns.mean(), returns.std()))


def test_a_reset_forgets_the_context(evaluated, policy):
    def first_actions() -> list[int]:
        env, actions = single_envs(evaluated)[0], []
        policy.reset([7])
        observation, _ = env.reset()
        for _ in range(4):
            actions.append(policy.act(observation))
            observation, *outcome, _ = env.step(actions[-1])
            policy.observe(*outcome, observation)
        return actions

    assert first_actions() == first_actions()


@pytest.mark.parametrize("observation", [np.zeros(2, int), {"x": 1}])
def test_observations_of_another_number_or_space_are_refused(policy, observation):
    policy.reset(SEEDS)
    with pytest.raises(ConfigError, match="observation"):
        policy.act(observation)


def test_parts_are_found_wherever_the_space_has_them(policy):
    space = gymnasium.spaces.Dict(
        a=gymnasium.spaces.Tuple([gymnasium.spaces.Discrete(3), gymnasium.spaces.Box(0, 1, (2,))]),
        b=gymnasium.spaces.MultiDiscrete([2, 5]),
    )
    base = RecordedWorld()
    base.single_observation_space = space
    policy.model.spec = make_spec(base, 5, np.zeros(1))
    observation = {"a": (2, np.ones(2)), "b": np.array([1, 4])}
    tensors, is_batched = policy._tensors(observation)
    assert not is_batched
    found = {name: tensor.tolist() for name, tensor in tensors.items()}
    assert found == {"a-0": [2], "a-1": [[1.0, 1.0]], "b-0": [1], "b-1": [4]}


def test_hugging_faces_tools_read_the_card(evaluated, folder):
    data = ModelCard((folder / "README.md").read_text()).data
    assert (data.library_name, data.license) == ("algorithm-distillation", None)  # the owner's
    assert data.model_name == evaluated.config.name
    summary = read_checked_json(evaluated.folder / "results.json")["splits"]
    found = {
        (entry.dataset_split, entry.metric_type): entry.metric_value for entry in data.eval_results
    }
    for split in ("held_out", "train"):
        for score in ("nauc", "return_last10", "success_last10"):
            assert found[split, score] == summary[split][score]


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    """A copy of the release, to be damaged."""
    return shutil.copytree(folder, tmp_path / "copy")


@pytest.mark.parametrize("setting", ["env.id", "source.algorithm"])
def test_a_world_and_a_source_that_the_model_does_not_need_are_not_imported(copy, setting):
    imported = copy / "imported"
    (copy / "foreign.py").write_text(f"open({str(imported)!r}, 'w').close()\nclass Foreign: pass\n")
    config = yaml.safe_load((copy / "config.yaml").read_text())
    section, key = setting.split(".")
    config[section][key] = f"{copy / 'foreign.py'}:Foreign"
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    (copy / SUMS).write_text("".join(f"{sha256(copy / name)}  {name}\n" for name in FILES))
    load_release(copy)
    assert not imported.exists()


def test_the_released_model_gives_the_logits_of_the_trained_one(evaluated, copy):
    model, twin = load_model(evaluated), load_release(copy).model
    names = [*model.spec.padding, "step", "valid"]
    window = {name: torch.zeros((2, 6), dtype=torch.int64) for name in names}
    torch.testing.assert_close(twin(window), model(window), rtol=0, atol=0)


def test_a_sum_for_a_file_outside_the_release_is_refused(copy):
    lines = (copy / SUMS).read_text().replace("config.yaml", "../../x.yaml")
    (copy / SUMS).write_text(lines)
    with pytest.raises(CorruptError, match="does not list its files"):
        load_release(copy)


def test_a_run_without_a_training_is_not_released(experiment):
    with pytest.raises(ConfigError, match="`ad train`"):
        release(Run.open(experiment()))


def test_hugging_faces_tools_read_the_results(evaluated, folder):
    entries = parse_eval_result_entries(yaml.safe_load((folder / EVAL_RESULTS).read_text()))
    summary = read_checked_json(evaluated.folder / "results.json")["splits"]["held_out"]
    scores = {entry.task_id: entry.value for entry in entries}
    assert scores["nauc"] == summary["nauc"]
    assert {entry.dataset_id for entry in entries} == {"algorithm-distillation/DarkRoom-v0"}
