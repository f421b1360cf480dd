"""What a world, a source, a method and a policy may be: outsiders go all the way to a report."""

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
from ad.data.load import load_training_set
from ad.data.spec import make_spec
from ad.data.store import load_history
from ad.errors import ConfigError
from ad.evaluation.evaluate import load_model
from ad.evaluation.summary import is_evaluated
from ad.exchange.release import load_release, release
from ad.methods.context_policy import ContextPolicy
from ad.methods.contexts import SlidingWindow
from ad.models.encoders.mlp import MLPEncoder
from ad.models.sequence_model import SequenceModel
from ad.pipeline import run_all
from ad.registry import TOKENIZERS
from ad.reporting.verify import verify
from ad.runtime.run import Run
from ad.training.trainer import Trainer
from envs import make_base
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
    "planning in parts": [
        *("--env.id", f"{HERE}/worlds.py:Silent", "--env.episode_length", "6"),
        *("--env.kwargs", "{parts: true}", "--model.encoder", "table", *SEARCH),
        *("--method.name", "in_context_planning", "--evaluation.temperature_known", "0.5"),
    ],
    "a recurrent memory": ["--model.memory", "gru", "--training.precision", "bfloat16"],
    "averages": ["--model.memory", f"{HERE}/components.py:Averages"],
    "context values": ["--method.name", "context_value"],
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
    outside = ":" in run.config.method.name + run.config.model.memory
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
    rewards = load_training_set(run).spec
    assert rewards.rewards == () and rewards.reward_range[1] > 1


def test_windows_say_which_actions_their_task_has(finished):
    dataset = load_training_set(finished("arms"))
    batch = dataset.sampler(("action",)).sample(np.random.default_rng(0), 50)
    mask = batch["action_mask"][:, 1:]
    assert mask.shape == (50, 12, 6) and set(mask.sum(-1).ravel()) <= {3, 4, 5, 6}
    assert np.take_along_axis(mask, batch["action"][:, 1:, None], -1).all()


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


def test_optimal_actions_lead_to_the_goal_of_their_task(gathered):
    run = gathered("optimal actions")
    dataset = load_training_set(run)
    windows = dataset.sampler(("observation", "optimal_action"))
    moved = run.world.successors()[windows.data["observation"], windows.data["optimal_action"]]
    goals = np.repeat(run.split.train_tasks @ [9, 1], len(windows.lengths) // 3)
    goals = np.repeat(goals, windows.lengths)  # of each transition
    before, after = (
        np.abs(np.stack(np.divmod(cells, 9)) - np.divmod(goals, 9)).sum(0)
        for cells in (windows.data["observation"], moved)
    )
    np.testing.assert_array_equal(after, np.maximum(before.astype(int) - 1, 0))


def test_dtypes_are_stored_as_they_are_and_widened_where_torch_lacks_them(gathered):
    run = gathered("other dtypes")
    arrays = load_history(HistoryStore(run.config).folder(run.split.train_tasks[0])).arrays
    dtypes = {name: arrays[f"observation-{name}"].dtype for name in ("wide", "double", "flag")}
    assert dtypes == {"wide": np.uint16, "double": np.float64, "flag": np.int8}
    assert arrays["observation-wide"].max() == 65_535
    batch = load_training_set(run).sampler(("observation",)).sample(np.random.default_rng(0), 4)
    assert batch["observation-wide"].dtype == np.int64
    assert batch["observation-wide"].max() == 65_535


def test_an_mlp_reads_bounded_entries_from_minus_one_to_one_and_others_as_they_are():
    values, ends = torch.tensor([[0.0, 10.0]]), torch.tensor([[-1.0, 1.0]])
    bounded = MLPEncoder(Array((2,), "float32", 0.0, 10.0), 8)
    torch.testing.assert_close(bounded(values), bounded.layers(ends))
    for high in (None, 3e38):
        unbounded = MLPEncoder(Array((2,), "float32", 0.0, high), 8)
        torch.testing.assert_close(unbounded(values), unbounded.layers(values))


@pytest.mark.parametrize(
    "what", ["--env.id", "--source.algorithm", "--method.name", "--model.position"]
)
def test_a_changed_file_of_a_users_class_is_noticed(what, tmp_path):
    own = tmp_path / "own.py"
    text = (HERE / "components.py").read_text() + (HERE / "worlds.py").read_text()
    text += "from ad.models.positions import EnvTime\n"
    own.write_text(text)
    words = {
        "--env.id": [f"{own}:Silent", "--env.episode_length", "6", "--model.encoder", "table"],
        "--source.algorithm": [f"{own}:Uniform"],
        "--method.name": [f"{own}:TimeLeft"],
        "--model.position": [f"{own}:EnvTime"],
    }[what]
    config = configured(tmp_path, what, *words, "--training.steps", "1")
    run = Run.open(config)
    run_all([run])
    assert len(HistoryStore(config).missing(run.split.train_tasks)) == 0 and is_evaluated(run)
    own.write_text(text + "# changed\n")
    lost = 3 if what in ("--env.id", "--source.algorithm") else 0
    assert len(HistoryStore(config).missing(run.split.train_tasks)) == lost
    assert not is_evaluated(run)
    with pytest.raises(ConfigError, match=r"another version of .*\.py.* --fresh true"):
        load_model(Run(config))


LATE = {  # what only shows when the component runs: still a sentence, and before it is trained
    "the world breaks its observation space: an observation is no value of": [
        *("--env.id", f"{HERE}/components.py:Late", "--model.encoder", "table", *SEARCH)
    ],
    "an observation is no value of Discrete.4.: 1.5": [
        *("--env.id", f"{HERE}/components.py:Halves", "--model.encoder", "table"),
        *("--env.tasks", "[{}, {}]", "--split.num_train_tasks", "1"),
    ],
    "breaks its observation space: an observation": [
        *("--env.id", f"{HERE}/components.py:Liar", "--model.encoder", "table")
    ],
    "ended after 60 of 120 steps": ["--source.algorithm", f"{HERE}/components.py:Lazy"],
    "the model reads return_to_go, which ContextPolicy does not give": [
        *("--method.name", f"{HERE}/components.py:Forgetful")
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


ORDERS = [*((name, "after") for name in TOKENIZERS), ("separate", "before")]


@pytest.mark.parametrize(("tokenizer", "order"), ORDERS)
def test_cached_logits_of_pictures_are_those_of_a_full_pass(picture_spec, tokenizer, order):
    model = picture_model(picture_spec, tokenizer, reward_token=order)
    window, context_length = picture_window(3, 20), 4

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


BAD = {
    "the key 'a-b' of the observation space": [
        *("--env.id", f"{HERE}/components.py:Dashed", "--env.tasks", "[{}, {}]")
    ],
    "it has no loss": ["--method.name", f"{HERE}/components.py:Lossless"],
    "has no _advance and no _observation": ["--env.id", f"{HERE}/components.py:Wordless"],
    "has no forward and no new_cache": ["--model.memory", f"{HERE}/components.py:Amnesia"],
    "reads the field surprise, which nothing computes": [
        *("--method.name", f"{HERE}/components.py:Unknowing")
    ],
}


@pytest.mark.parametrize("sentence", BAD)
def test_what_does_not_fit_is_one_sentence_before_any_compute(sentence, tmp_path, capsys):
    words = ["--root", str(tmp_path), "--split.num_train_tasks", "1", *BAD[sentence]]
    with pytest.raises(ConfigError, match=sentence) as error:
        load(words)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
