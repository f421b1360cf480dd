"""RL²: trials, proximal policy optimization, exact resume, all verbs, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch

from ad import pipeline
from ad.cli import VERBS, exit_code
from ad.config.parser import load
from ad.config.world import make_envs
from ad.errors import NumericError
from ad.evaluation.evaluate import evaluate
from ad.exchange.release import load_release, release
from ad.interpret.inspect import inspect_run
from ad.methods import build_method, rl2_learner
from ad.methods.rl2_learner import TrialLearner
from ad.registry import MEMORIES
from ad.reporting.verify import verify
from ad.runtime.run import Run
from ad.training import checkpoints
from ad.training.loop import new_trainer
from ad.training.loop import train as train_loop
from ad.training.validation import validate

TINY = {"env_steps": 160, "num_envs": 4, "trial_steps": 10, "epochs": 2, "minibatches": 2}
STEPS = 4  # train steps of TINY


def words(**changes) -> list[str]:
    """Return the options of a tiny training; `changes` are settings of the method."""
    settings = json.dumps(TINY | changes)
    own = ["--model.memory", "gru", "--training.log_every", "1"]
    return ["--method.name", "rl2", "--method.settings", settings, *own]


@pytest.fixture(scope="module")
def whole(smoke, tmp_path_factory) -> Run:
    """A run of all verbs; tests only read it."""
    config = smoke(tmp_path_factory.mktemp("rl2"), *words(), "--training.checkpoint_every", "2")
    run = Run.open(config)
    pipeline.run_all([run])
    return run


def test_the_segments_of_a_trial_need_not_divide_a_batch_of_windows(smoke, tmp_path):
    assert smoke(tmp_path, *words(), "--training.segments", "3").training.batch_size % 3


@pytest.fixture
def copied(whole, tmp_path) -> Run:
    """A copy of the run `whole`, which tests may damage."""
    shutil.copytree(whole.folder, tmp_path / "logs" / whole.folder.name)
    return Run(load([*_options(tmp_path), "--training.checkpoint_every", "2"]))


def _options(root) -> list[str]:
    fixed = ["--config_path", "configs/smoke.yaml", "--root", str(root), "--device", "cpu"]
    return [*fixed, "--threads", "1", *words()]


def train(run: Run) -> dict:
    """Train from the newest checkpoint and return the last one."""
    train_loop(new_trainer(run), validate)
    run.log.close()
    return checkpoints.load(checkpoints.newest(run.folder / "checkpoints"))


@pytest.fixture
def learner(smoke, tmp_path):
    """learner(*options, **settings) returns a learner in the tiny room."""

    def new(*options: str, **changes) -> TrialLearner:
        run = Run(smoke(tmp_path, *words(**changes), *options))
        found = build_method(run.config.method).learner(run.config, run.split.train_tasks)
        torch.manual_seed(0)
        torch.nn.init.normal_(found.model.head.weight)
        torch.nn.init.normal_(found.model.value_head.weight)
        return found

    return new


def test_all_verbs_run_without_histories(whole):
    names = {"table.md", "report.html", "trajectories.npz", "config.yaml"}
    assert names < {path.name for path in whole.folder.iterdir()}
    assert not (whole.folder.parents[1] / "histories").exists()
    assert not (whole.folder / "demo.html").exists()  # the page is for transformers
    results = json.loads((whole.folder / "results.json").read_text())
    assert results["transitions"] == TINY["env_steps"]
    assert "source" not in results["references"] and "random" in results["references"]
    verify(whole)
    lines = [json.loads(line) for line in (whole.folder / "metrics.jsonl").open()]
    assert [line["step"] for line in lines if "train/trial_return" in line] == [1, 2, 3, 4]


def test_env_steps_are_those_of_whole_episodes(smoke, tmp_path):
    config = smoke(tmp_path, *words(trial_steps=13))
    steps = build_method(config.method).transitions(config)
    assert config.env.episode_length == 5 and steps == 160 // (4 * 13) * 4 * 10


def test_a_collection_has_nothing_to_do_and_a_release_acts(tmp_path, whole):
    assert exit_code(VERBS["collect"], _options(tmp_path)) == 0
    assert (tmp_path / "logs" / "smoke" / "split.json").exists()
    release(whole)
    assert 0 <= load_release(whole.folder / "release").act(4) < 5


@pytest.mark.parametrize("left", [1, 0])
def test_an_interrupted_training_resumes_with_the_same_bits(whole, copied, left):
    expected = checkpoints.load(checkpoints.newest(whole.folder / "checkpoints"))
    for path in sorted((copied.folder / "checkpoints").glob("step_*.pt"))[left:]:
        path.unlink()
        path.with_suffix(".json").unlink()
    resumed = train(copied)
    assert resumed["step"] == STEPS
    for name in ("model", "optimizer", "metrics"):
        torch.testing.assert_close(resumed[name], expected[name], rtol=0, atol=0)


def test_a_model_that_is_not_finite_ends_the_training_in_a_sentence(smoke, tmp_path):
    run = Run.open(smoke(tmp_path, *words()))
    trainer = new_trainer(run)
    torch.nn.init.constant_(trainer.model.value_head.bias, np.nan)
    with pytest.raises(NumericError, match="the losses of train step 0 are not finite"):
        train_loop(trainer, validate)
    run.log.close()


def test_training_leaves_the_random_generators_of_the_process_as_they_were(learner):
    trials = learner()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trials.train_step(0)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("segments", [1, 2])
@pytest.mark.parametrize("memory", [m for m in MEMORIES if not MEMORIES.load(m).retrieved])
def test_a_trial_is_read_in_training_as_it_was_played(learner, memory, segments):
    if (segments > 1) != MEMORIES.load(memory).carries and memory not in ("gru", "min_gru"):
        pytest.skip("this memory reads one segment, or more")
    length = str(10 // segments)
    trials = learner(
        *("--model.memory", memory, "--training.segments", str(segments)),
        *("--data.context_length", length),
    )
    assert trials.model.segment_length == (None if segments == 1 else 5)
    played = trials.play(3)
    with torch.no_grad():
        hidden = trials.model.hidden(played.window)
    values, log_probs = trials.model.values(hidden), trials.log_probs(hidden, None)
    torch.testing.assert_close(values, played.values, atol=1e-5, rtol=0)
    taken = log_probs.gather(-1, played.window["action"][:, 1:, None])[..., 0]
    torch.testing.assert_close(taken, played.log_probs, atol=1e-5, rtol=0)
    assert played.values.std(0)[1:].max() > 1e-3  # what was seen matters


def test_the_first_update_finds_the_probabilities_of_the_play(learner):
    trials = learner("--model.encoder", "offsets", epochs=1, minibatches=1)  # it shifts in training
    assert trials.update(trials.play(0), 0.0)["approx_kl"] < 1e-6


def test_a_trial_has_the_same_number_of_episodes_in_every_task(learner):
    played = learner("--env.change", "1", num_envs=50, env_steps=500).play(1)  # two episodes each
    begins = (played.window["time"][:, 1:] == 0) & played.valid
    assert begins.sum(1).tolist() == [2] * 50
    lengths = played.valid.sum(1)
    assert lengths.min() < lengths.max() == played.valid.shape[1]
    assert (played.valid == (torch.arange(lengths.max()) < lengths[:, None])).all()
    last = played.window["time"].gather(1, lengths[:, None])[:, 0]
    reward = played.window["reward"].gather(1, lengths[:, None])[:, 0]
    assert ((last == 4) | (reward == 1)).all()  # the limit of five steps, or the goal


def test_tasks_that_change_do_so_in_a_trial(learner):
    for told, rate in (("0", 0), ("0.1", 0.1), ("1", 1), ("2", 0.5), ("9", 0.5)):
        assert learner("--env.change", told).env.change == rate  # two episodes


def test_a_step_of_the_losses_by_hand(learner):
    trials = learner()
    played, advantages = trials.play(0), torch.randn(4, 10)
    played.window["valid"][1, 4:] = False
    losses = trials.losses(played, advantages, played.values - 2)
    mean = advantages[played.valid].mean()
    torch.testing.assert_close(losses["policy_loss"], -mean, atol=1e-5, rtol=0)  # the ratios are 1
    torch.testing.assert_close(losses["value_loss"], torch.tensor(2.0), atol=1e-4, rtol=0)
    assert 0 < losses["entropy"] < np.log(5) and losses["approx_kl"].abs() < 1e-5


@pytest.mark.parametrize(("sign", "moves"), [(1.0, False), (-1.0, True)])
def test_a_ratio_beyond_the_clip_has_no_gradient_where_it_would_gain(learner, sign, moves):
    trials = learner(clip=0.2)
    played = trials.play(0)
    played = played._replace(log_probs=played.log_probs - 1)  # every action has become likelier
    advantages = sign * torch.ones_like(played.log_probs)
    loss = trials.losses(played, advantages, advantages)["policy_loss"]
    gradient = torch.autograd.grad(loss, trials.model.head.bias)[0]
    assert (gradient.abs().max() > 1e-6) == moves


def test_advantages_are_the_sums_of_discounted_errors_up_to_the_end_of_the_trial(learner):
    trials = learner(trial_steps=5, env_steps=20, discount=0.5, gae_lambda=0.5)
    played = trials.play(0)
    window = {name: value[:, [0, 1, 1, 1, 1, 1]] for name, value in played.window.items()}
    window["reward"] = torch.tensor([np.nan, 0.0, 0.0, 1.0, 0.0, 2.0]).repeat(4, 1)
    values = torch.tensor([1.0, 2.0, 0.0, 4.0, 2.0]).expand(4, -1)
    window["valid"][1, 4:] = False  # three decisions
    found = trials.advantages(played._replace(window=window, values=values))
    first = [0 + 1 - 1, 0 + 0 - 2, 1 + 2 - 0, 0 + 1 - 4, 2 + 0 - 2]
    for env, length, errors in ((0, 5, first), (1, 3, [*first[:2], 1 + 0 - 0])):
        by_hand = [sum(e * 0.25**n for n, e in enumerate(errors[t:length])) for t in range(length)]
        expected = torch.tensor(by_hand + [0.0] * (5 - length))
        torch.testing.assert_close(found[env], expected)


def test_an_update_does_not_depend_on_how_its_trials_are_parted(learner, monkeypatch):
    weights = []
    for size in (50, 7):
        monkeypatch.setattr(rl2_learner, "PART", size)
        trials = learner(num_envs=50, env_steps=500)
        trials.train_step(0)
        weights.append(torch.cat([p.flatten() for p in trials.model.parameters()]).detach())
    torch.testing.assert_close(*weights, atol=2e-4, rtol=0)


def test_the_tasks_of_trials_are_drawn_by_the_train_step_and_the_environment(learner, monkeypatch):
    few, many = learner(), learner(num_envs=200, env_steps=2000)
    drawn, made = [], lambda *words: drawn.append(words[1]) or make_envs(*words)
    monkeypatch.setattr(rl2_learner, "make_envs", made)
    for trials, step in ((few, 0), (many, 0), (many, 1)):
        trials.play(step)
    np.testing.assert_array_equal(drawn[0], drawn[1][:4])
    assert (drawn[1] != drawn[2]).any()
    assert len(np.unique(drawn[1], axis=0)) == len(many.tasks) == 5


def test_actions_that_a_task_lacks_are_not_taken_and_have_no_part_in_the_loss(learner):
    arms = ["--env.id", "tests/worlds.py:Bandit", "--env.kwargs", "{pulls: 5}"]
    trials = learner(*arms, "--model.encoder", "table")
    played = trials.play(0)
    taken = played.window["action"][:, 1:]
    assert not played.mask.all() and played.mask[:, 0].gather(1, taken).all()
    metrics = trials.train_step(0)
    assert np.isfinite([*metrics.values()]).all()


def test_a_transformer_that_learned_online_is_looked_inside_of(smoke, tmp_path, capsys):
    run = Run.open(smoke(tmp_path, *words(), "--model.memory", "transformer"))
    train(run)
    inspect_run(run, ["attention", "ablation", "lens", "static"])
    said = capsys.readouterr().out
    assert all(f"{name}: {run.folder}" in said for name in ("attention", "ablation", "lens"))


def test_a_world_that_no_source_can_learn_is_no_obstacle(smoke, tmp_path):
    ring = ["--env.id", "tests/worlds.py:Silent", "--env.kwargs", "{parts: true}"]
    ring += ["--model.encoder", "table", "--split.num_train_tasks", "3"]
    assert train(Run.open(smoke(tmp_path, *ring, *words())))["step"] == STEPS


@pytest.mark.slow
def test_it_learns_to_search_for_the_best_arm(tmp_path):
    settings = {"env_steps": 1_024_000, "num_envs": 64, "minibatches": 4}
    config = load(
        [
            *("--config_path", "configs/bandit.yaml", "--root", str(tmp_path), "--threads", "1"),
            *("--method.name", "rl2", "--method.settings", json.dumps(settings)),
            *("--model.memory", "gru", "--model.layers", "1"),
            *("--data.context_length", "100"),
            *("--evaluation.temperature", "1", "--training.eval_every", "1000"),
        ]
    )
    run = Run.open(config)
    train(run)
    evaluate(run)
    results = json.loads((run.folder / "results.json").read_text())
    scores = results["splits"]["held_out"]
    low, high = scores["ci95"]["normalized_return_last10"]
    print(f"{scores['normalized_return_last10']:.3f} [{low:.3f}, {high:.3f}]")
    assert low > 0  # as uniformly random pulls have
