"""Evaluation in other worlds than that of training: their tasks, references and folders."""

import copy
import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from training_run import train

from ad import pipeline
from ad.errors import ConfigError
from ad.evaluation.evaluate import load_model
from ad.evaluation.transfer import TransferEvaluation, evaluate_worlds
from ad.reporting import verify as verification
from ad.runtime.files import read_checked_json, write_checked_json
from ad.runtime.run import Run
from envs import make_base
from envs.spaces import Discrete

WORLDS = [{"size": 5}, {"start": "random"}]
ANYWHERE = ("--model.encoder", "offsets", "--evaluation.worlds", json.dumps(WORLDS))


@pytest.fixture(scope="module")
def run(experiment) -> Run:
    """Return a trained run, evaluated in its own and in both other worlds; read only."""
    made = train(experiment(*ANYWHERE))
    pipeline.evaluate(made)
    return made


def changed(run: Run, **sections) -> Run:
    """Return the run under another configuration, with the same folder."""
    other = copy.copy(run)
    other.config = replace(run.config, **sections)
    return other


def results(run: Run, name: str) -> dict:
    return json.loads((run.folder / "worlds" / name / "results.json").read_text())


def test_all_goals_of_a_larger_room_are_played_and_those_beside_the_trained_ones_are_held_out(run):
    with open(run.folder / "worlds" / "size_5" / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    tasks = {
        part: {r["task"] for r in rows if r["split"] == part} for part in ("train", "held_out")
    }
    trained = {f"{row + 1}-{column + 1}" for row, column in run.split.train_tasks}
    assert tasks["train"] == trained
    assert len(tasks["held_out"]) == 24 - 5 and not tasks["held_out"] & trained


@pytest.mark.parametrize("kwargs", WORLDS)
def test_the_references_are_those_of_the_world_played(run, kwargs):
    there = TransferEvaluation(run, kwargs)
    base = make_base("DarkRoom-v0", **({"size": 3} | kwargs))
    tasks = there.evaluated_split.held_out_tasks
    line, optimal = (
        base.references(tasks, 5, 12)["random_then_optimal"],
        base.optimal_return(tasks, 5),
    )
    found = results(run, there.folder.name)["references"]["random_then_optimal"]["held_out"]
    assert found["nauc"] == pytest.approx(np.mean(line.returns.mean(1) / optimal))


def test_the_model_is_the_same_and_only_its_observations_are_others(run):
    trained, moved = load_model(run), load_model(run, TransferEvaluation(run, {"size": 5}).base_env)
    assert moved.spec == replace(trained.spec, observation={"": Discrete(25, (5, 5))})
    torch.testing.assert_close(trained.state_dict(), moved.state_dict(), rtol=0, atol=0)


def test_worlds_that_are_evaluated_are_not_evaluated_again_but_for_fresh(run):
    assert evaluate_worlds(run) == []
    before = (run.folder / "worlds" / "size_5" / "results.csv").read_bytes()
    assert [there.kwargs for there in evaluate_worlds(run, fresh=True)] == WORLDS
    assert (run.folder / "worlds" / "size_5" / "results.csv").read_bytes() == before


def test_results_of_another_model_do_not_count(run):
    there = TransferEvaluation(run, {"size": 5})
    path = there.folder / "results.json"
    content = path.read_bytes()
    for name in ("checkpoint", "split_hash", "config_hash"):
        write_checked_json(path, read_checked_json(path) | {name: "0" * 64})
        assert there.results() is None, name
        path.write_bytes(content)
    assert there.results()["world"] == {"size": 5}


def test_verify_finds_damage_in_another_world_and_removes_that_evaluation_only(run):
    path = TransferEvaluation(run, {"size": 5}).folder / "results.csv"
    content = {file: file.read_bytes() for file in path.parent.iterdir()}
    assert verification.damaged_results(run) == {}
    path.write_bytes(content[path][:-1])
    damaged = verification.damaged_results(run)
    assert list(damaged) == [path]
    verification.remove_results(run, damaged)
    left = {file.parent for file in verification.run_results(run)}
    assert left == {run.folder, TransferEvaluation(run, {"start": "random"}).folder}
    for file, bytes_of_it in content.items():
        file.write_bytes(bytes_of_it)


def test_the_world_that_a_checkpoint_was_trained_in_is_still_held_to(run):
    kwargs = {"size": 3, "start": "random"}
    moved = changed(run, env=replace(run.config.env, kwargs=kwargs))
    with pytest.raises(ConfigError, match="trained with another world"):
        load_model(moved)
