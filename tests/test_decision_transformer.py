"""The methods that imitate single episodes: decision transformer and behavior clone."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from policies import SPEC, Recorded, random_model
from training_run import words_of

from ad.config.parser import load
from ad.config.schema import EvaluationConfig, Experiment
from ad.data.derived import Sequences, return_to_go
from ad.data.sampler import TaskHistory, WindowSampler
from ad.data.spec import Spec, make_spec
from ad.errors import ConfigError
from ad.evaluation.calibration import ACTIONS, read_calibration
from ad.evaluation.evaluate import evaluate
from ad.methods import context_policy
from ad.pipeline import run_all
from ad.registry import MEMORIES, TOKENIZERS
from ad.reporting.headline import headline
from ad.reporting.report import report
from ad.rollout.rollout import rollout, sampled
from ad.rollout.tasks import asking_for
from ad.runtime import metrics_log
from ad.runtime.run import Run
from envs import make_base, make_vec
from envs.oracle import TaskOracle
from envs.spaces import Discrete

HERE = Path(__file__).parent
# Two actors of four episodes; the last transition of the first actor belongs to none.
REWARD = [[1, 0, 2, 0, 3, 0, 0, 9], [0, 0, 0, 1, 0, 5, 1, 1]]
DONE = [[0, 0, 1, 0, 1, 0, 1, 0], [0, 1, 0, 0, 0, 1, 0, 1]]
LEFT = [[3, 2, 2, 3, 3, 0, 0], [0, 0, 6, 6, 5, 5, 2, 1]]  # return to go, by hand
LENGTHS = [3, 2, 2, 2, 4, 2]
RETURNS = [3, 3, 0, 0, 6, 2]


def sampler(context_length: int, **settings) -> WindowSampler:
    """Return windows of the two actors by hand."""
    number = np.arange(16).reshape(2, 8)
    arrays = {"observation": number, "reward": np.array(REWARD, np.float32)}
    arrays |= {"terminated": np.array(DONE, bool), "truncated": np.zeros((2, 8), bool)}
    spec = Spec({"": Discrete(16, (16,))}, 5, (), (0.0, 9.0), 6)
    history = TaskHistory(arrays, np.zeros(1, int), TaskOracle())
    fields = ("observation", "reward", "return_to_go")
    return WindowSampler([history], spec, fields, context_length, 1, **settings)


@pytest.mark.parametrize("within_episodes", [False, True])
def test_the_return_to_go_of_a_window_is_that_of_the_whole_episode(within_episodes):
    for length in (1, 2, 5):
        windows = sampler(length, within_episodes=within_episodes)
        batch = windows.sample(np.random.default_rng(0), 300)
        valid, number = batch["valid"], batch["observation"]
        expected = np.array([*LEFT[0], np.nan, *LEFT[1]])[number[valid]]
        np.testing.assert_array_equal(batch["return_to_go"][valid], expected)


def test_windows_within_episodes_show_one_episode_and_pad_what_is_missing():
    windows = sampler(3, within_episodes=True)
    assert windows.lengths.tolist() == LENGTHS
    batch = windows.sample(np.random.default_rng(0), 400)
    valid, number = batch["valid"], batch["observation"]
    episode = np.repeat(np.arange(6), LENGTHS)
    of_window = np.insert(episode, 7, -1)[np.where(valid, number, 7)]  # 7 belongs to no episode
    shown = np.where(valid, of_window, -1)
    assert all(len(set(row[row >= 0])) == 1 for row in shown)
    assert (batch["step"][:, 1:][valid[:, 1:]] <= 3).all()
    short = np.isin(shown.max(1), np.flatnonzero(np.array(LENGTHS) == 2))
    assert (valid[:, 1:].sum(1) == np.where(short, 2, 3)).all()
    assert set(number[valid].tolist()) == set(range(16)) - {7}


@pytest.mark.parametrize("within_episodes", [False, True])
def test_windows_may_end_where_an_episode_ends(within_episodes):
    def share_at_ends(seed: int, **to_end) -> float:
        windows = sampler(2, within_episodes=within_episodes, **to_end)
        last = windows.sample(np.random.default_rng(seed), 4000)["observation"][:, 2]
        return np.isin(last, np.flatnonzero(DONE)).mean()

    by_chance = share_at_ends(1)
    for share in (0.0, 0.5, 1.0):
        expected = share + (1 - share) * by_chance
        assert share_at_ends(0, to_end=share) == pytest.approx(expected, abs=0.03)


def test_the_best_episodes_are_those_with_the_highest_returns_and_all_that_tie():
    for fraction, kept in ((0.1, [6]), (0.3, [6, 3, 3]), (0.5, [6, 3, 3]), (1.0, RETURNS)):
        windows = sampler(2, best_fraction=fraction, within_episodes=True)
        start = windows.starts
        returns = np.add.reduceat(windows.data["reward"], start)
        assert sorted(returns) == sorted(kept)


def window_of(count: int, length: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return random windows from the beginning of an episode."""
    rng = np.random.default_rng(seed)
    sizes = {"observation": 9, "action": 5, "reward": 2, "next_observation": 9, "return_to_go": 3}
    window = {
        name: torch.from_numpy(rng.integers(size, size=(count, length + 1)))
        for name, size in sizes.items()
    }
    window |= {name: window[name].double() for name in ("reward", "return_to_go")}
    window["step"] = (torch.arange(length + 1) - 1).clamp(min=0).repeat(count, 1)
    window["time"], window["valid"] = window["step"], torch.arange(length + 1).repeat(count, 1) > 0
    for name, value in SPEC.padding.items():
        window[name][:, 0] = value
    return window


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("name", ["behavior_cloning", "decision_transformer"])
def test_rewards_are_not_in_the_tokens_of_single_episodes(name, tokenizer):
    _, model = random_model(name, tokenizer=tokenizer)
    window = window_of(3, 6)
    other = window | {"reward": 1 - window["reward"]}
    assert torch.equal(model(window), model(other))
    _, across = random_model("decision_transformer", ACROSS)
    assert not torch.equal(across(window), across(other))


ASKED = [0.0, 0.5, 1.0]  # of three environments
TASKS = np.array([[0, 0], [1, 2], [2, 2]])


def play(method, model, context_length: int, terminate: bool = True):
    """Play three episodes of three rooms; return the logits and the trajectory of each one.

    A trajectory also has `earned`, the rewards before each transition in its episode.
    """
    policy = Recorded(method.policy(model, 3, context_length, method.PolicySettings(ASKED)))
    keeps_keys = context_length >= model.spec.episode_length or not method.within_episodes
    assert (policy.policy.context.cache is not None) == keeps_keys
    world = make_vec("DarkRoom-v0", TASKS, 6, size=3, terminate=terminate)
    played = rollout(policy, world, [1, 2, 3], 3, sampled(), record=range(3)).trajectory
    trajectories = []
    for env in range(3):
        steps = int((played["episode"][env] >= 0).sum())
        arrays = {name: values[env, :steps] for name, values in played.items()}
        episode, reward = arrays["episode"], arrays["reward"]
        before = np.cumsum(reward) - reward
        earned = before - before[np.searchsorted(episode, np.arange(3))][episode]
        done = np.append(episode[1:] != episode[:-1], True)
        arrays |= {"terminated": done, "truncated": np.zeros_like(done), "earned": earned}
        trajectories.append(arrays)
    return policy.logits, trajectories


def windows_of(arrays, task, method, context_length: int, left: np.ndarray) -> WindowSampler:
    """Return the training windows of a trajectory whose returns to go are `left`."""
    return WindowSampler(
        [TaskHistory({n: v[None] for n, v in arrays.items()}, task, TaskOracle())],
        SPEC,
        method.fields,
        context_length,
        1,
        derived={"return_to_go": lambda _: left.astype(np.float32)},
        within_episodes=method.within_episodes,
    )


def check_logits(logits, model, windows, sequence: int, offset: int, place: int) -> None:
    """Compare logits of a rollout to those of the decision at `place` of a training window."""
    batch = windows.windows(np.array([sequence]), np.array([offset]))
    shown = {name: torch.from_numpy(values) for name, values in batch.items()}
    torch.testing.assert_close(logits, model(shown)[0, place], atol=1e-9, rtol=0)


ACROSS = {"across_episodes": True}
POSITIONS = ["env_time", "window", "history", "rotary"]


@pytest.mark.parametrize("tokenizer", ["conditioned", "fused", "separate"])
@pytest.mark.parametrize("position", [*POSITIONS, "time with a GRU"])
@pytest.mark.parametrize(
    "context_length, terminate",
    [(1, True), (3, True), (10, True), (3, False), (10, False)],  # False: all episodes end together
)
def test_a_rollout_shows_what_a_training_window_shows_at_the_same_positions(
    tokenizer, position, context_length, terminate
):
    recurrent = {"memory": "gru", "position": "env_time"}
    other = recurrent if position not in POSITIONS else {"position": position}
    method, model = random_model("decision_transformer", tokenizer=tokenizer, **other)
    logits, trajectories = play(method, model, context_length, terminate)
    for env, arrays in enumerate(trajectories):
        left = ASKED[env] - arrays["earned"]
        windows = windows_of(arrays, TASKS[env], method, context_length, left)
        for number, time in enumerate(arrays["time"]):
            offset = max(time + 1 - context_length, 0)
            episode = arrays["episode"][number]
            check_logits(logits[env][number], model, windows, episode, offset, time - offset)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("context_length", [1, 3, 10])
def test_a_rollout_across_episodes_shows_what_past_episodes_achieved_as_training_windows_do(
    tokenizer, position, context_length
):
    check_rollout_across_episodes(context_length, tokenizer=tokenizer, position=position)


@pytest.mark.parametrize("memory", ["gru", "min_gru"])
def test_a_recurrent_memory_reads_what_past_episodes_achieved(memory):
    check_rollout_across_episodes(10, memory=memory)


def check_rollout_across_episodes(context_length, **kwargs):
    method, model = random_model("decision_transformer", ACROSS, **kwargs)
    logits, trajectories = play(method, model, context_length)
    for env, arrays in enumerate(trajectories):
        achieved = return_to_go(
            Sequences(arrays, np.array([]), TASKS[env], TaskOracle(), np.array([]))
        )
        length = 0
        for number, episode in enumerate(arrays["episode"]):
            asked = ASKED[env] - arrays["earned"]
            left = np.where(arrays["episode"] == episode, asked, achieved)
            windows = windows_of(arrays, TASKS[env], method, context_length, left)
            length = (context_length // 2 if length == context_length else length) + 1
            offset = number + 1 - length
            check_logits(logits[env][number], model, windows, 0, offset, length - 1)


def test_decisions_that_were_entered_without_logits_count_in_those_of_the_next_one():
    method, model = random_model("decision_transformer")
    here, no = torch.tensor([4, 4]), torch.zeros(2) > 0
    logits = []
    for look in ("act", "enter"):
        policy = method.policy(model, 2, 8, method.PolicySettings(1.0))
        for time in range(4):
            step = policy.act if time in (0, 3) else getattr(policy, look)
            found = step(here, torch.full((2,), time))
            policy.observe(torch.tensor([time, 1]), torch.tensor([0.25, 0.5]), no, no, here)
        logits.append(found)
    torch.testing.assert_close(logits[1], logits[0])


@pytest.mark.parametrize("memory", MEMORIES)
def test_environments_are_selected_with_what_is_kept_of_their_episodes(memory):
    method, model = random_model("decision_transformer", memory=memory)
    kept, plain = (method.policy(model, 2, 8, method.PolicySettings(1.0)) for _ in range(2))
    plain.context.cache = None
    no, ended = torch.zeros(2) > 0, torch.tensor([False, True])
    for policy in (kept, plain):
        for time, ends in ((torch.tensor([0, 0]), ended), (torch.tensor([1, 0]), no)):
            policy.act(time + 3, time)
            policy.observe(time, torch.tensor([0.25, 0.5]), ends, no, time + 4)
        policy.select(torch.tensor([1, 0, 0]))
    state = torch.tensor([4, 5, 6]), torch.tensor([1, 2, 2])
    torch.testing.assert_close(kept.act(*state), plain.act(*state))


def test_another_return_is_asked_for_until_a_reward_is_in_the_context():
    method, model = random_model("decision_transformer", ACROSS)
    policy = method.policy(model, 2, 8, method.PolicySettings(1.0, 0.0))
    zero, no, asked = torch.zeros(2, dtype=torch.long), torch.zeros(2) > 0, []
    for reward in ([0.0, 0.0], [0.0, 0.25], [0.0, 0.0], [0.0, 0.0]):  # episodes of one step
        asked.append(policy.inputs()["return_to_go"].tolist())
        policy.act(zero, zero)
        policy.observe(zero, torch.tensor(reward), no, ~no, zero)
    assert asked == [[0, 0], [0, 0], [0, 1], [0, 1]]
    policy.select(torch.tensor([1, 0, 1]))
    assert policy.asked.tolist() == policy.inputs()["return_to_go"].tolist() == [1, 0, 1]
    with pytest.raises(ConfigError, match="asked_before_reward needs across_episodes"):
        random_model("decision_transformer")[0].policy(model, 2, 8, method.PolicySettings(1, 0))


def test_each_return_of_a_calibration_is_asked_for_before_a_reward_too():
    old = EvaluationConfig(policy={"asked_return": 2.0, "asked_before_reward": 0.0})
    assert asking_for(Experiment(evaluation=old), [1.0]).evaluation.policy == {"asked_return": [1]}


def test_accuracy_is_the_share_of_valid_decisions_whose_action_is_the_likeliest():
    method, model = random_model("behavior_cloning")
    window = window_of(4, 6)
    window["valid"][1, 3:] = False
    valid = window["valid"][:, 1:]
    _, metrics = method.loss(model, window)
    hits = (model(window).argmax(-1) == window["action"][:, 1:])[valid]
    torch.testing.assert_close(metrics["accuracy"], hits.float().mean())
    window["action_mask"] = torch.zeros(4, 7, 5, dtype=torch.bool)
    window["action_mask"].scatter_(2, window["action"].clamp(max=4)[..., None], True)
    assert method.loss(model, window)[1]["accuracy"] == 1


def test_what_is_asked_for_is_what_a_tenth_of_the_episodes_of_a_task_reach():
    world = make_base("DarkRoom-v0")
    returns = [np.arange(11.0), np.full(3, 2.0), np.zeros(0)]  # 9 and 2; a task without episodes
    spec = make_spec(world, 6, np.array([0.0, 1.0]), returns)
    assert (spec.return_range, spec.reached_return) == ((0.0, 10.0), 5.5)
    method, model = random_model("decision_transformer")
    model.spec = replace(model.spec, reached_return=0.75)
    policy = method.policy(model, 2, 4, method.PolicySettings())
    assert policy.inputs()["return_to_go"].tolist() == [0.75, 0.75]


def test_a_return_beyond_the_data_is_a_warning_once(capsys):
    context_policy._check_range.cache_clear()
    method, model = random_model("decision_transformer")
    for _ in range(2):
        method.policy(model, 2, 4, method.PolicySettings([0.5, 1.5]))
    method.policy(model, 2, 4, method.PolicySettings())
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "asked return 1.5" in lines[0]
    for asked in ("much", [1.0, 2.0, 3.0], float("nan")):
        with pytest.raises(ConfigError, match="asked_return must be"):
            method.policy(model, 2, 4, method.PolicySettings(asked))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Run:
    """A decision transformer of a world in which the return is the number of moves to the right."""
    settings = {
        "env.id": f"{HERE}/worlds.py:Paying",
        "env.episode_length": 6,
        "split.num_train_tasks": 3,
        "source.algorithm": f"{HERE}/components.py:Uniform",
        "source.env_steps": 4800,
        "source.num_envs": 4,
        "data.history_stride": 1,
        "data.context_length": 2,
        "data.windows_to_end": 0.1,
        "data.windows_from_start": 0,
        "model.encoder": "table",
        "model.tokenizer": "conditioned",
        "model.width": 16,
        "model.layers": 1,
        "model.feed_forward": 32,
        "method.name": "decision_transformer",
        "training.steps": 300,
        "training.warmup_steps": 20,
        "training.batch_size": 64,
        "training.learning_rate": 0.01,
        "training.log_every": 50,
        "evaluation.episodes": 20,
        "evaluation.eval_seeds": 2,
        "evaluation.temperature": 1.0,
        "evaluation.policy": "{asked_return: 6}",
        "evaluation.calibration": "[0, 1, 3, 5, 6]",
        "evaluation.asked_returns": "[1, 5]",
        "training.precision": "float32",
        "record.source_videos": "false",
    }
    root = tmp_path_factory.mktemp("asked")
    run = Run.open(load(["--root", str(root), "--device", "cpu", *words_of(settings)]))
    run_all([run])
    return run


def test_a_decision_transformer_reaches_what_is_asked(finished):
    results = json.loads((finished.folder / "results.json").read_text())
    for entry in results["calibration"]:
        assert set(entry) == {"asked", "achieved", "low", "high", "episodes"}
        assert abs(entry["achieved"] - entry["asked"]) < 0.4
        assert entry["low"] <= entry["achieved"] <= entry["high"]
        assert entry["episodes"] == 3 * 2 * 20
    assert [entry["asked"] for entry in results["calibration"]] == [0, 1, 3, 5, 6]
    assert results["calibration"] == results["calibration_by_action"]["sample"]
    held_out = results["splits"]["held_out"]
    assert held_out["return_last10"] > 5.6


def test_asked_returns_are_logged_during_training_and_reported(finished):
    steps, achieved = metrics_log.series(finished.folder, metrics_log.ASKED)
    assert steps == [300] and list(achieved) == ["1", "5"]
    for asked, (value,) in achieved.items():
        assert abs(value - float(asked)) < 0.4
    assert "Returns for asked ones during training" in report(finished).read_text()
    results = json.loads((finished.folder / "results.json").read_text())
    told = headline(results | {"asked_before_reward": 0.0}, False, "frozen model")
    assert "6.00 asked" in told and told.count("0 until a reward is in the context, then ") == 1


def test_a_damaged_calibration_is_made_again(finished):
    path = finished.folder / "calibration.csv"
    before = path.read_text()
    path.write_text(before[:-1] + "7")
    assert evaluate(finished)
    assert path.read_text() == before
    assert list(read_calibration(path)) == ["sample", "greedy"]
    few = [f"{action},5,{task},0,1,{task}" for action in ACTIONS for task in [1] * 3 + [3] * 3]
    path.write_text("\n".join([path.read_text().splitlines()[0], *few]))
    (entry,) = read_calibration(path)["greedy"]  # two tasks, not six independent episodes
    assert entry["achieved"] == 2 and entry["low"] < -10 and entry["episodes"] == 6
