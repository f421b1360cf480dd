"""What a world, a source, a method and a policy may be: outsiders go all the way to a report."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from training_run import checkpoint, words_of

from ad.collection.collect import collect
from ad.config.parser import load
from ad.config.schema import ModelConfig
from ad.data.histories import HistoryStore
from ad.data.load import load_dataset
from ad.data.spec import make_spec
from ad.data.store import load_history
from ad.errors import ConfigError
from ad.evaluation.evaluate import load_model
from ad.exchange.release import load_release, release
from ad.methods import build_method
from ad.methods import policy as policies
from ad.methods.context_policy import ContextPolicy
from ad.methods.contexts import SlidingWindow
from ad.models.encoders.mlp import MLPEncoder
from ad.models.sequence_model import SequenceModel
from ad.pipeline import run_all
from ad.registry import TOKENIZERS
from ad.reporting.verify import verify
from ad.rollout.rollout import greedy, rollout
from ad.runtime.run import Run
from ad.training import trainer as trainer_module
from ad.training.trainer import Trainer
from envs import make_base, make_vec
from envs.spaces import Array

HERE = Path(__file__).parent
PICTURES = ["--env.id", f"{HERE}/components.py:PictureRoom", "--env.episode_length", "8"]
PICTURES += ["--env.tasks", "[{goal: 3}, {goal: 7}, {goal: 11}, {goal: 20}]"]
ENCODERS = ["--model.encoder", "table", "--model.encoders", "{image: mlp}"]
SEARCH = ["--source.algorithm", f"{HERE}/components.py:RandomSearch"]
ARMS = ["--env.id", f"{HERE}/worlds.py:Bandit", "--env.episode_length", "5"]
ARMS += ["--env.kwargs", "{pulls: 5}", "--model.encoder", "table", "--model.reward", "projection"]
CARTPOLE = ["--env.id", "CartPole-v1", "--env.tasks", "[{}, {sutton_barto_reward: true}]"]
CASES = {
    "pictures": [*PICTURES, *ENCODERS, *SEARCH],
    "arms": [*ARMS, "--split.num_train_tasks", "6"],
    "a world that tells nothing": [
        *("--env.id", f"{HERE}/worlds.py:Silent", "--env.episode_length", "6"),
        *("--model.encoder", "table"),
    ],
    "CartPole": [*CARTPOLE, "--model.encoder", "mlp", *SEARCH, "--split.num_train_tasks", "1"],
    "large numbers": [
        *("--env.id", f"{HERE}/components.py:Large", "--env.tasks", "[{}, {}]"),
        *("--model.encoder", "table", "--split.num_train_tasks", "1"),
        *("--source.algorithm", f"{HERE}/components.py:Uniform"),
    ],
    "critic": ["--method.name", f"{HERE}/components.py:Critic"],
    "return": [
        *("--method.name", f"{HERE}/components.py:ReturnConditioned"),
        *("--evaluation.policy", "{target_return: 2.0}"),
    ],
    "decision transformer of pictures": [
        *(*PICTURES, *SEARCH, "--model.encoder", "table", "--model.encoders", "{image: vit}"),
        *("--method.name", "decision_transformer", "--model.tokenizer", "conditioned"),
        *("--model.norm", "none", "--evaluation.calibration", "[0, 1]"),
    ],
    "in-context Q of pictures": [
        *(*PICTURES, *ENCODERS, *SEARCH, "--method.name", "in_context_q"),
        *("--method.settings.loss", "iql", "--model.tokenizer", "separate"),
    ],
    "planning in parts": [
        *("--env.id", f"{HERE}/worlds.py:Silent", "--env.episode_length", "6"),
        *("--env.kwargs", "{parts: true}", "--model.encoder", "table", *SEARCH),
        *("--method.name", "in_context_planning", "--evaluation.temperature_known", "0.5"),
    ],
    "loss alone": ["--method.name", f"{HERE}/components.py:Fitting"],
}
COLLECTED = {
    "optimal actions": ["--method.name", f"{HERE}/components.py:Supervised"],
    "other dtypes": [
        *("--env.id", f"{HERE}/components.py:Dtypes", "--env.tasks", "[{}, {}]"),
        *("--model.encoder", "mlp", "--split.num_train_tasks", "1"),
        *("--source.algorithm", f"{HERE}/components.py:Uniform"),
    ],
}
SMALL = {
    "split.num_train_tasks": 3,
    "source.env_steps": 480,
    "source.num_envs": 4,
    "source.state_every": 0,
    "data.history_stride": 1,
    "data.context_length": 12,
    "training.steps": 4,
    "training.warmup_steps": 0,
    "training.batch_size": 8,
    "training.log_every": 1,
    "training.eval_episodes": 2,
    "evaluation.episodes": 3,
    "evaluation.eval_seeds": 1,
    "model.width": 16,
    "model.layers": 1,
    "model.feed_forward": 16,
    "record.held_out_videos": 1,
    "record.source_videos": "false",
}


def configured(root: Path, *words: str):
    """Return a small experiment below `root`."""
    return load(["--root", str(root), "--device", "cpu", *words_of(SMALL), *words])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """finished(name) returns the run of a case after all verbs; each runs once."""
    runs = {}

    def run(name: str) -> Run:
        if name not in runs:
            root = tmp_path_factory.mktemp("contract")
            runs[name] = Run.open(configured(root, *CASES[name]))
            run_all([runs[name]])
        return runs[name]

    return run


@pytest.fixture
def gathered(tmp_path):
    """gathered(name) returns the run of a case with its histories only."""

    def run(name: str) -> Run:
        run = Run.open(configured(tmp_path, *COLLECTED[name]))
        collect(run)
        return run

    return run


@pytest.mark.parametrize("name", CASES)
def test_every_verb_takes_it(finished, name):
    run = finished(name)
    results = json.loads((run.folder / "results.json").read_text())
    assert results["splits"]["held_out"]["return_last10"] is not None
    assert (run.folder / "report.html").read_text().count("<table") >= 2
    verify(run)
    release(run)
    outside = ":" in run.config.method.name
    if outside:
        with pytest.raises(ConfigError, match=r"needs .*components\.py:"):
            load_release(run.folder / "release")
    model = load_release(run.folder / "release", trust_code=outside).model
    torch.testing.assert_close(dict(model.state_dict()), dict(load_model(run).state_dict()))


def test_pictures_are_stored_and_recorded_as_they_are(finished):
    run = finished("pictures")
    history = load_history(HistoryStore(run.config).folder(run.split.train_tasks[0]))
    image = history.arrays["observation-image"]
    assert (image.dtype, image.shape) == (np.uint8, (4, 120, 5, 5, 3))
    assert (image.sum((2, 3, 4)) == 255 + 40).all()
    assert history.arrays["next_observation-bumped"].dtype == np.uint16
    with np.load(run.folder / "trajectories.npz") as recorded:
        before, after = recorded["observation-image"], recorded["next_observation-image"]
        assert before.dtype == np.uint8
        inside = recorded["episode"][:, 1:] == recorded["episode"][:, :-1]
        inside &= recorded["episode"][:, 1:] >= 0
        np.testing.assert_array_equal(before[:, 1:][inside], after[:, :-1][inside])


def test_numbers_above_16_and_8_bits_are_stored_as_they_are(finished):
    run = finished("large numbers")
    arrays = load_history(HistoryStore(run.config).folder(run.split.train_tasks[0])).arrays
    observation, action = arrays["next_observation"], arrays["action"]
    assert (observation.dtype, action.dtype) == (np.uint32, np.uint16)
    np.testing.assert_array_equal(observation, 69_999 - action.astype(int))
    assert observation.max() > 65_535 and action.max() > 255
    with np.load(run.folder / "trajectories.npz") as recorded:
        played = recorded["episode"] >= 0
        wanted = 69_999 - recorded["action"][played].astype(int)
        np.testing.assert_array_equal(recorded["next_observation"][played], wanted)


def test_a_source_and_a_rollout_take_only_the_actions_that_a_task_has(finished):
    run = finished("arms")
    taken = set()
    for task in run.split.train_tasks:
        action = load_history(HistoryStore(run.config).folder(task)).arrays["action"]
        assert action.max() < task[0]
        taken |= {(int(task[0]), int(a)) for a in np.unique(action)}
    assert {(arms, arms - 1) for arms, _ in taken} <= taken
    with np.load(run.folder / "trajectories.npz") as recorded:
        assert (recorded["action"].max(1) < recorded["task"][:, 0]).all()
    rewards = load_dataset(run).spec
    assert rewards.rewards == () and rewards.reward_range[1] > 1


def test_windows_say_which_actions_their_task_has(finished):
    dataset = load_dataset(finished("arms"))
    batch = dataset.windows(("action",)).sample(np.random.default_rng(0), 50)
    mask = batch["action_mask"][:, 1:]
    assert mask.shape == (50, 12, 6) and set(mask.sum(-1).ravel()) <= {3, 4, 5, 6}
    assert np.take_along_axis(mask, batch["action"][:, 1:, None], -1).all()


def test_a_report_says_what_a_world_cannot_tell(finished):
    page = (finished("a world that tells nothing").folder / "report.html").read_text()
    assert "does not provide: optimal returns, successes, maps, videos." in page


def test_a_methods_numbers_are_logged_and_its_target_network_follows(finished):
    run = finished("critic")
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    logged = [line for line in lines if "train/loss" in line]
    assert len(logged) == 4
    for line in logged:
        parts = line["train/actor_loss"] + line["train/value_loss"]
        assert line["train/loss"] == pytest.approx(parts, rel=1e-5)
    end, start = checkpoint(run)["model"], Trainer(run).new_model()
    away = [(end[name] - start.value.weight).norm() for name in ("value.weight", "target.weight")]
    assert 0 < away[1] < away[0]  # it began as a copy of the value head


def test_a_return_to_go_is_what_is_left_of_the_episodes_return(finished):
    run = finished("return")
    batch = load_dataset(run).windows(("reward", "time", "return_to_go"))
    batch = batch.sample(np.random.default_rng(0), 200)
    left, reward, time = (batch[name][:, 1:] for name in ("return_to_go", "reward", "time"))
    goes_on = (time[:, 1:] == time[:, :-1] + 1) & batch["valid"][:, 2:]
    np.testing.assert_allclose(left[:, :-1][goes_on], (reward[:, :-1] + left[:, 1:])[goes_on])
    ends = (time[:, 1:] == 0) & batch["valid"][:, 2:]
    np.testing.assert_allclose(left[:, :-1][ends], reward[:, :-1][ends])
    assert left.max() == 1


def test_optimal_actions_lead_to_the_goal_of_their_task(gathered):
    run = gathered("optimal actions")
    dataset = load_dataset(run)
    windows = dataset.windows(("observation", "optimal_action"))
    moved = run.world.successors()[windows.data["observation"], windows.data["optimal_action"]]
    goals = np.repeat(run.split.train_tasks @ [9, 1], len(windows.lengths) // 3)
    goals = np.repeat(goals, windows.lengths)  # of each transition
    before, after = (
        np.abs(np.stack(np.divmod(cells, 9)) - np.divmod(goals, 9)).sum(0)
        for cells in (windows.data["observation"], moved)
    )
    np.testing.assert_array_equal(after, np.maximum(before.astype(int) - 1, 0))


def test_what_is_asked_of_a_rollout_reaches_the_model(finished):
    run = finished("return")
    model, method = load_model(run), run_method(run)
    logits = []
    for asked in (0.0, 2.0):
        policy = method.policy(model, 2, 12, method.PolicySettings(asked))
        start = torch.full((2,), 40), torch.zeros(2, dtype=torch.int64)
        logits.append(policy.act(*start))
    assert (logits[0] - logits[1]).abs().max() > 1e-4


def run_method(run: Run):
    return build_method(run.config.method)


def test_dtypes_are_stored_as_they_are_and_widened_where_torch_lacks_them(gathered):
    run = gathered("other dtypes")
    arrays = load_history(HistoryStore(run.config).folder(run.split.train_tasks[0])).arrays
    dtypes = {name: arrays[f"observation-{name}"].dtype for name in ("wide", "double", "flag")}
    assert dtypes == {"wide": np.uint16, "double": np.float64, "flag": np.int8}
    assert arrays["observation-wide"].max() == 65_535
    batch = load_dataset(run).windows(("observation",)).sample(np.random.default_rng(0), 4)
    assert batch["observation-wide"].dtype == np.int64
    assert batch["observation-wide"].max() == 65_535


def test_metrics_are_those_of_the_whole_batch_in_micro_batches_too(tmp_path, monkeypatch):
    words = ["--source.algorithm", "noise_distillation", "--training.precision", "float32"]
    run = Run.open(configured(tmp_path, *CASES["critic"], *words, "--data.context_length", "100"))
    collect(run)
    trainer = Trainer(run)
    whole, _ = trainer.loss_and_grad(trainer.model)
    monkeypatch.setattr(trainer_module, "LARGEST_ACTIVATION", 1)
    pieces, _ = trainer.loss_and_grad(trainer.model)
    assert set(whole) == {"loss", "actor_loss", "value_loss"}
    torch.testing.assert_close(pieces, whole)


def test_an_mlp_reads_bounded_entries_from_minus_one_to_one_and_others_as_they_are():
    values, ends = torch.tensor([[0.0, 10.0]]), torch.tensor([[-1.0, 1.0]])
    bounded = MLPEncoder(Array((2,), "float32", 0.0, 10.0), 8)
    torch.testing.assert_close(bounded(values), bounded.layers(ends))
    for high in (None, 3e38):
        unbounded = MLPEncoder(Array((2,), "float32", 0.0, high), 8)
        torch.testing.assert_close(unbounded(values), unbounded.layers(values))


@pytest.mark.parametrize("what", ["--env.id", "--source.algorithm", "--method.name"])
def test_a_changed_file_of_a_users_class_is_noticed(what, tmp_path):
    own = tmp_path / "own.py"
    text = (HERE / "components.py").read_text() + (HERE / "worlds.py").read_text()
    own.write_text(text)
    words = {
        "--env.id": [f"{own}:Silent", "--env.episode_length", "6", "--model.encoder", "table"],
        "--source.algorithm": [f"{own}:Uniform"],
        "--method.name": [f"{own}:TimeLeft"],
    }[what]
    config = configured(tmp_path, what, *words, "--training.steps", "1")
    run = Run.open(config)
    run_all([run])
    assert len(HistoryStore(config).missing(run.split.train_tasks)) == 0
    own.write_text(text + "# changed\n")
    kept = what == "--method.name"
    assert len(HistoryStore(config).missing(run.split.train_tasks)) == (0 if kept else 3)
    with pytest.raises(ConfigError, match=r"another version of .*\.py.* --fresh true"):
        load_model(Run(config))


LATE = {  # what only shows when the component runs: still a sentence, and before it is trained
    "the world breaks its observation space: an observation is no value of": [
        *("--env.id", f"{HERE}/components.py:Late", "--model.encoder", "table", *SEARCH),
    ],
    "breaks its observation space: an observation": [
        *("--env.id", f"{HERE}/components.py:Liar", "--model.encoder", "table"),
    ],
    "ended after 60 of 120 steps": ["--source.algorithm", f"{HERE}/components.py:Lazy"],
    "the model reads return_to_go, which ContextPolicy does not give": [
        *("--method.name", f"{HERE}/components.py:Forgetful"),
    ],
}


@pytest.mark.parametrize("sentence", LATE)
def test_what_breaks_a_contract_is_one_sentence(sentence, tmp_path):
    run = Run.open(configured(tmp_path, *LATE[sentence]))
    with pytest.raises(ConfigError, match=sentence):
        run_all([run])
    assert not (run.folder / "checkpoints").exists()


@pytest.fixture(scope="module")
def picture_spec():
    world = make_base(PICTURES[1], [{"goal": 3}])
    return make_spec(world, 8, np.array([0.0, 1.0]))


def picture_model(spec, tokenizer: str, **settings) -> SequenceModel:
    """Return a random model of pictures and a return to go, with logits large enough to compare."""
    torch.manual_seed(0)
    small = {"width": 16, "layers": 2, "heads": 2, "feed_forward": 16, "encoder": "table"}
    config = ModelConfig(**small, encoders={"image": "mlp"}, tokenizer=tokenizer, **settings)
    model = SequenceModel(spec, config, inputs={"return_to_go": torch.nn.Linear(1, 16)})
    torch.nn.init.normal_(model.head.weight)
    return model.double().eval().requires_grad_(False)


def picture_window(count: int, length: int) -> dict[str, torch.Tensor]:
    """Return random windows of pictures from the beginning of a history."""
    generator = torch.Generator().manual_seed(3)

    def draw(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(high, (count, length + 1, *shape), generator=generator)

    window = {"action": draw(4), "reward": draw(2).double(), "time": draw(8)}
    for role in ("observation", "next_observation"):
        window[f"{role}-image"] = draw(256, 5, 5, 3).to(torch.uint8)
        window[f"{role}-bumped"] = draw(2)
    window["return_to_go"] = draw(5).double()
    window["step"] = (torch.arange(length + 1) - 1).clamp(min=0).repeat(count, 1)
    window["valid"] = torch.arange(length + 1).repeat(count, 1) > 0
    window["reward"][:, 0], window["action"][:, 0] = torch.nan, 4
    for role in ("observation", "next_observation"):
        window[f"{role}-bumped"][:, 0] = 2
    return window


KNOWN_LATER = ("action", "reward", "next_observation-image", "next_observation-bumped")
ORDERS = [*((name, "after") for name in TOKENIZERS), ("separate", "before")]


@pytest.mark.parametrize(("tokenizer", "order"), ORDERS)
def test_no_decision_sees_a_later_field_of_any_entry(picture_spec, tokenizer, order):
    model, window = picture_model(picture_spec, tokenizer, reward_token=order), picture_window(3, 6)
    before = model(window)
    names = set(window) - {"valid", "step"}  # they tell where an entry stands, not what happened
    if not TOKENIZERS.load(tokenizer).has_outcomes:
        names -= set(KNOWN_LATER[1:])
    for name, entry in itertools.product(sorted(names), range(1, 7)):
        other = window[name].clone()
        other[:, entry] = (other[:, entry] + 1) % (2 if name.endswith(("bumped", "reward")) else 4)
        change = (model(window | {name: other}) - before).abs().amax((0, 2))  # [T]
        first = entry if name in KNOWN_LATER else entry - 1  # the first decision that knows it
        assert not change[:first].any(), f"{name}, entry {entry}"
        assert change[first:].all(), f"{name}, entry {entry}"


@pytest.mark.parametrize(("tokenizer", "order"), ORDERS)
@pytest.mark.parametrize("context_length", [1, 4, 7])
def test_cached_logits_of_pictures_are_those_of_a_full_pass(
    picture_spec, tokenizer, order, context_length
):
    model, window = (
        picture_model(picture_spec, tokenizer, reward_token=order),
        picture_window(3, 20),
    )

    class Policy(ContextPolicy):
        def inputs(self):
            return {"return_to_go": window["return_to_go"][:, self.context.step + 1]}

    def parts(role: str, step: int) -> dict[str, torch.Tensor]:
        return {part: window[f"{role}-{part}"][:, step] for part in ("image", "bumped")}

    policy = Policy(model, SlidingWindow(model, 3, context_length))
    for step in range(1, 21):
        logits = policy.act(parts("observation", step), window["time"][:, step])
        full = model(policy.window())[:, -1]
        torch.testing.assert_close(logits, full, atol=1e-9, rtol=0)
        if step <= context_length:  # as in training: the window from the history's beginning
            training = {name: values[:, : step + 1].clone() for name, values in window.items()}
            torch.testing.assert_close(logits, model(training)[:, -1], atol=1e-5, rtol=0)
        action, reward = window["action"][:, step], window["reward"][:, step].float()
        policy.observe(action, reward, reward > 2, reward > 2, parts("next_observation", step))


def test_a_selected_environment_may_repeat_and_its_contexts_then_part(picture_spec):
    model, window = picture_model(picture_spec, "fused"), picture_window(3, 4)

    class Policy(ContextPolicy):
        def inputs(self):
            return {"return_to_go": 0.0}

    policy = Policy(model, SlidingWindow(model, 3, 4))

    def act(step: int, envs) -> torch.Tensor:
        parts = {p: window[f"observation-{p}"][envs, step] for p in ("image", "bumped")}
        return policy.act(parts, window["time"][envs, step])

    def observe(step: int, envs, action) -> None:
        parts = {p: window[f"next_observation-{p}"][envs, step] for p in ("image", "bumped")}
        reward = window["reward"][envs, step].float()
        policy.observe(action, reward, reward > 2, reward > 2, parts)

    act(1, [0, 1, 2])
    observe(1, [0, 1, 2], window["action"][:, 1])
    policy.select(torch.tensor([1, 1, 0]))
    twins = act(2, [1, 1, 0])
    torch.testing.assert_close(twins[0], twins[1])
    observe(2, [1, 1, 0], torch.tensor([0, 3, 0]))
    twins = act(3, [1, 1, 0])
    assert (twins[0] - twins[1]).abs().max() > 1e-6


class Clockwise(policies.Policy):
    """A policy written by hand: it walks in circles through a dark room."""

    def __init__(self):
        self.steps = 0

    def act(self, observation, time):
        logits = torch.full((len(observation), 5), float("-inf"))
        logits[torch.arange(len(observation)), 1 + (time // 2) % 4] = 0.0
        return logits

    def observe(self, action, reward, terminated, truncated, next_observation):
        self.steps += 1

    def select(self, envs):
        pass


def test_a_policy_written_by_hand_plays_in_the_same_rollout():
    policy = Clockwise()
    env = make_vec("DarkRoom-v0", [[1, 2], [0, 0]], 8, size=3)
    result = rollout(policy, env, [1, 2], 3, greedy, record=[0, 1])
    actions = result.trajectory["action"][0, : result.lengths[0, 0]]
    np.testing.assert_array_equal(actions, (1 + np.arange(8) // 2 % 4)[: len(actions)])
    assert policy.steps == result.trajectory["action"].shape[1]
    assert not result.reward_in_context.any()


BAD = {
    "the key 'a-b' of the observation space": [
        *("--env.id", f"{HERE}/components.py:Dashed", "--env.tasks", "[{}, {}]"),
    ],
    "it has no loss": ["--method.name", f"{HERE}/components.py:Lossless"],
    "has no _advance and no _observation": ["--env.id", f"{HERE}/components.py:Wordless"],
    "its tasks must be different rows": ["--env.id", f"{HERE}/components.py:Repeated"],
    "or a Box of numbers, it is Text": ["--env.id", f"{HERE}/components.py:Wordy"],
    "reads the field surprise, which nothing computes": [
        *("--method.name", f"{HERE}/components.py:Unknowing"),
    ],
    "needs a world that knows its optimal actions": [
        *("--env.id", f"{HERE}/worlds.py:Silent", "--model.encoder", "table"),
        *("--method.name", f"{HERE}/components.py:Supervised"),
    ],
    r"evaluation\.policy\.target_return .*is not a setting": [
        *("--evaluation.policy", "{target_return: 1}"),
    ],
    "unknown observation encoder 'mpl'; did you mean mlp": [
        *(*PICTURES, *SEARCH, "--model.encoder", "table", "--model.encoders", "{image: mpl}"),
    ],
}


@pytest.mark.parametrize("sentence", BAD)
def test_what_does_not_fit_is_one_sentence_before_any_compute(sentence, tmp_path, capsys):
    words = ["--root", str(tmp_path), "--split.num_train_tasks", "1", *BAD[sentence]]
    with pytest.raises(ConfigError, match=sentence) as error:
        load(words)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
