"""All verbs in turn, from nothing to a report: a tiny room, and a small one that is learned."""

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from training_run import finish

from ad import pipeline
from ad.cli import VERBS, exit_code
from ad.collection.collect import collect
from ad.data.histories import HistoryStore
from ad.errors import ConfigError
from ad.rollout.tasks import policy_of, rollout_tasks
from ad.runtime.run import Run
from ad.training.trainer import Trainer
from envs.tasks import task_name


def files(*folders: Path) -> dict[Path, bytes]:
    """The content of every file that is or lies below one of `folders`."""
    paths = [path for top in folders for path in (top, *sorted(top.rglob("*")))]
    return {path: path.read_bytes() for path in paths if path.is_file()}


def ages(*folders: Path) -> dict[Path, int]:
    """When each file below `folders` was last written, in nanoseconds."""
    return {path: path.stat().st_mtime_ns for path in files(*folders)}


@pytest.fixture(scope="module")
def config(smoke, tmp_path_factory):
    """The smoke experiment, from nothing to its report; only to be read."""
    config = smoke(tmp_path_factory.mktemp("pipeline"))
    pipeline.run_all([Run.open(config)])
    return config


@pytest.fixture
def again(config, tmp_path):
    """The same in a copy of the whole folder."""
    shutil.copytree(config.root, tmp_path / "copy")
    return replace(config, root=str(tmp_path / "copy"))


def folder(config) -> Path:
    return Path(config.root) / "logs" / config.name


def results(config) -> list[dict[str, str]]:
    """The rows of results.csv."""
    with open(folder(config) / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def summary(config) -> dict:
    """results.json without the seconds."""
    content = json.loads((folder(config) / "results.json").read_text())
    return {name: value for name, value in content.items() if name != "timing"}


def test_only_train_tasks_have_histories(config):
    split = Run.open(config).split
    units = {
        path.name
        for path in HistoryStore(config).folder(split.train_tasks[0]).parent.glob("task_*")
    }
    assert units == {HistoryStore(config).folder(task).name for task in split.train_tasks}
    assert not units & {HistoryStore(config).folder(task).name for task in split.held_out_tasks}


def test_there_is_one_row_of_results_for_each_split_task_seed_and_episode(config):
    split = Run.open(config).split
    expected = {
        (part, task_name(task), str(seed), str(episode))
        for part, tasks, seeds in (
            ("held_out", split.held_out_tasks, 2),
            ("train", split.train_tasks, 1),
        )
        for task in tasks
        for seed in range(seeds)
        for episode in range(1, 13)
    }
    rows = [(r["split"], r["task"], r["eval_seed"], r["episode"]) for r in results(config)]
    assert len(rows) == len(expected) and set(rows) == expected


def test_the_trajectories_are_those_of_the_first_seed_of_every_task(config):
    steps = np.load(folder(config) / "trajectories.npz", allow_pickle=False)
    rows = {
        (r["split"], r["task"], int(r["episode"])): r
        for r in results(config)
        if r["eval_seed"] == "0"
    }
    assert len(rows) == 12 * len(steps["split"])
    for env, (part, task) in enumerate(zip(steps["split"], steps["task"], strict=True)):
        for episode in range(12):
            inside = steps["episode"][env] == episode
            row = rows[str(part), task_name(task), episode + 1]
            assert float(row["return"]) == steps["reward"][env, inside].sum()
            assert int(row["length"]) == inside.sum()
            assert row["success"] == str(int(float(row["return"]) > 0))


def test_the_aggregates_are_those_of_the_rows(config):
    aggregates = json.loads((folder(config) / "results.json").read_text())["splits"]
    for part, entry in aggregates.items():
        rows = [row for row in results(config) if row["split"] == part]
        last = [int(row["success"]) for row in rows if int(row["episode"]) > 2]
        assert entry["success_last10"] == pytest.approx(np.mean(last))
        assert entry["nauc"] == pytest.approx(np.mean([float(row["return"]) for row in rows]))


def test_the_report_needs_nothing_from_elsewhere(config):
    page = (folder(config) / "report.html").read_text()
    assert set(re.findall(r"https?://[^\"' ]*", page)) <= {"http://www.w3.org/2000/svg"}
    assert "data:video/mp4" in page
    assert 'href="demo.html"' in page and (folder(config) / "demo.html").exists()


def test_the_second_time_nothing_is_computed_again(again, capsys):
    made = ("checkpoints", "tensorboard", "source", "results.csv", "trajectories.npz")
    kept = [Path(again.root) / "histories", Path(again.root) / "videos"]
    kept += [folder(again) / name for name in made]
    before = ages(*kept)
    names = ("metrics.jsonl", "split.json", "curve.png")
    contents, aggregates = [(folder(again) / name).read_bytes() for name in names], summary(again)
    pipeline.run_all([Run.open(again)])
    assert [(folder(again) / name).read_bytes() for name in names] == contents
    assert summary(again) == aggregates
    changed = {path for path, age in ages(*kept).items() if before.get(path) != age}
    assert {path for path in changed if not path.name.startswith("split_")} == set()
    said = capsys.readouterr().out
    assert "0 of 5 histories" in said and "0 of 6 videos" in said
    assert said.count("already done") == 2


def test_from_nothing_it_comes_to_the_same_results(config, again):
    before = {name: (folder(config) / name).read_bytes() for name in ("results.csv", "split.json")}
    histories = files(Path(config.root) / "histories")
    shutil.rmtree(again.root)
    Path(again.root).mkdir()
    run = Run.open(again)
    pipeline.collect(run)
    pipeline.train(run)
    pipeline.evaluate(run)
    assert list(files(Path(again.root) / "histories").values()) == list(histories.values())
    assert {name: (folder(again) / name).read_bytes() for name in before} == before


def test_a_fresh_run_begins_again_and_keeps_the_histories(again):
    histories, results_before = ages(Path(again.root) / "histories"), results(again)
    checkpoints = ages(folder(again) / "checkpoints")
    pipeline.run_all([Run.open(again)], fresh=True)
    units = {path: age for path, age in histories.items() if not path.name.startswith("split_")}
    assert units.items() <= ages(Path(again.root) / "histories").items()
    assert not checkpoints.items() & ages(folder(again) / "checkpoints").items()
    assert results(again) == results_before


def test_results_that_were_deleted_are_made_again(again):
    before = (folder(again) / "results.csv").read_bytes()
    (folder(again) / "results.csv").unlink()
    pipeline.evaluate(Run.open(again))
    assert (folder(again) / "results.csv").read_bytes() == before


def test_other_evaluation_settings_need_no_new_training(again):
    trained = ages(folder(again) / "checkpoints")
    evaluation = replace(again.evaluation, num_train_tasks=2, episodes=3, action="greedy")
    fewer = replace(again, evaluation=evaluation)
    run = Run.open(fewer)
    pipeline.train(run)
    pipeline.evaluate(run)
    pipeline.record(run)
    pipeline.report(run)
    assert ages(folder(again) / "checkpoints") == trained
    assert max(int(row["episode"]) for row in results(again)) == 3
    evaluated = {task_name(task) for task in run.split.train_tasks[[0, -1]]}
    content = summary(fewer)
    assert {task["task"] for task in content["splits"]["train"]["per_task"]} == evaluated
    assert "source_end" in content["references"]


def test_a_fresh_training_without_histories_keeps_the_model(again):
    shutil.rmtree(Path(again.root) / "histories")
    run = Run.open(again)
    before = files(run.folder)
    with pytest.raises(ConfigError, match="have no history"):
        pipeline.train(run, fresh=True)
    assert files(run.folder) == before


def test_a_verb_that_reads_a_run_leaves_its_settings(again):
    before = files(folder(again))
    words = [str(folder(again)), "--root", again.root]
    assert exit_code(VERBS["report"], [*words, "--evaluation.action", "greedy"]) == 2
    assert exit_code(VERBS["report"], [*words, "--name", "another"]) == 2
    assert files(folder(again)) == before and not folder(again).with_name("another").exists()


def test_an_interrupted_evaluation_leaves_no_results(again, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    run = Run.open(again)
    assert list(run.videos.glob("held_out_*"))
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("ad.evaluation.evaluate.write_summary", interrupted)
        pipeline.evaluate(run, fresh=True)
    with pytest.raises(ConfigError, match="no results of these settings"):
        pipeline.report(run)
    assert not list(run.videos.glob("held_out_*")) and list(run.videos.glob("source_*"))


@pytest.mark.parametrize("verb", ["train", "evaluate", "record", "report"])
def test_a_verb_before_its_turn_says_so_in_one_sentence(tmp_path, verb, capsys):
    path = Path(__file__).parent.parent / "configs" / "smoke.yaml"
    words = ["--config_path", str(path), "--root", str(tmp_path), "--device", "cpu"]
    assert exit_code(VERBS[verb], [*words, "--threads", "1"]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "`ad " in sentence


def test_a_run_whose_videos_fail_has_its_report(smoke, tmp_path, monkeypatch, capsys):
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\ncat > /dev/null\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    config = smoke(tmp_path, "--training.steps", "6", "--evaluation.episodes", "4")
    pipeline.run_all([Run.open(config)])
    assert "no videos: ffmpeg could not write" in capsys.readouterr().err
    assert (folder(config) / "report.html").exists()


@pytest.mark.parametrize("kind", ["separate", "one_actor", "unknown"])
def test_every_kind_of_experiment_runs_from_nothing_to_its_report(smoke, tmp_path, kind):
    words = {
        "separate": [
            *("--model.tokenizer", "separate", "--model.next_observation", "false"),
            *("--model.reward_token", "before", "--model.position", "window"),
            *("--env.kwargs.terminate", "false", "--env.kwargs.start", "random"),
        ],
        "one_actor": [
            *("--source.num_envs", "1", "--data.held_out_actors", "0"),
            *("--model.position", "history", "--model.reward", "projection"),
        ],
        "unknown": [
            *("--env.id", "CliffWalking-v1", "--env.kwargs", "{}", "--env.tasks", "[{}, {}]"),
            *("--split.num_train_tasks", "1", "--training.eval_every", "3"),
        ],
    }
    fewer = ["--training.steps", "6", "--evaluation.episodes", "4", "--record.held_out_videos", "0"]
    config = smoke(tmp_path, *fewer, "--record.source_videos", "false", *words[kind])
    pipeline.run_all([Run.open(config)])
    assert (folder(config) / "report.html").stat().st_size > 1000
    logged = (folder(config) / "metrics.jsonl").read_text()
    assert ("success_last10" in logged) == (kind != "unknown") and "null" not in logged


@pytest.mark.slow
def test_the_return_on_unseen_goals_of_a_small_room_rises_over_in_context_episodes(smoke, tmp_path):
    changes = {
        "env.kwargs.size": "5",
        "env.episode_length": "10",
        "split.num_train_tasks": "18",
        "source.env_steps": "60_000",
        "source.num_envs": "10",
        "source.settings.learning_rate": "1e-3",
        "data.history_stride": "20",
        "data.context_length": "128",
        "model.width": "32",
        "model.feed_forward": "128",
        "training.steps": "800",
        "training.batch_size": "16",
        "training.warmup_steps": "50",
        "training.eval_every": "800",
    }
    config = smoke(tmp_path, *(word for path, v in changes.items() for word in (f"--{path}", v)))
    made = Run.open(config)
    collect(made)
    trainer = Trainer(made)
    finish(trainer)
    trainer.model.eval()
    new_policy = policy_of(config, trainer.method, trainer.model)
    held_out = rollout_tasks(config, made.split, new_policy, 40, (10, 1))["held_out"]
    first, last = held_out.returns[:, :5].mean(), held_out.returns[:, -10:].mean()
    assert last > 0.5 and last > first + 0.2
