"""An agent whose numbers are not finite stops alone; training and results report it."""

import json
import shutil

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.toy_text import FrozenLakeEnv
from small_run import evaluated_run

from ad.collection.collect import collect
from ad.collection.job import CollectionJob
from ad.data.histories import HistoryStore
from ad.data.store import load_history
from ad.errors import ConfigError
from ad.methods import build_method
from ad.reporting.report import report
from ad.runtime.files import read_checked_json, write_checked_json
from ad.runtime.run import Run
from ad.sources.actors import CHUNK_STEPS
from ad.training.trainer import load_training_data
from envs.tasks import task_name

WORDS = ["--source.algorithm", "a2c", "--source.env_steps", "8800", "--source.state_every", "0"]
BROKEN = 3  # the agent into whose Adam moments an infinity is put


class Exploding(FrozenLakeEnv):
    """A frozen lake that may pay more than a float32 holds the square of, or NaN."""

    def __init__(self, reward: float = 0.0):
        super().__init__()
        self.paid = reward if reward >= 0 else float("nan")

    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, self.paid, *rest


gymnasium.register("Exploding-v0", entry_point=Exploding)
LAKES = ["--env.id", "Exploding-v0", "--env.kwargs", "{}", "--split.num_train_tasks", "2"]
LAKES += ["--split.held_out", "[[2]]"]


@pytest.fixture
def lakes(smoke, tmp_path):
    """lakes(reward): the histories of two tasks; the second one's steps pay `reward`."""

    def play(reward: str) -> list:
        (tmp_path / reward).mkdir()
        tasks = f"[{{reward: 0.0}}, {{reward: {reward}}}, {{}}]"
        run = Run.open(smoke(tmp_path / reward, *LAKES, "--env.tasks", tasks, *WORDS))
        collect(run)
        return [
            load_history(HistoryStore(run.config).folder(task)) for task in run.split.train_tasks
        ]

    return play


@pytest.mark.parametrize("reward", ["1.0e+30", "-1.0"])
def test_a_reward_that_is_no_number_stops_that_agent_alone_and_is_said_once(lakes, capfd, reward):
    healthy, broken = lakes("0.5"), lakes(reward)
    (said,) = capfd.readouterr().err.splitlines()
    assert said.startswith("warning: 1 source agent stopped learning (1 at step 0)")
    assert broken[1].stopped_at == 0 and broken[0].stopped_at is None
    assert broken[0].manifest["files"] == healthy[0].manifest["files"]  # SHA-256 of all its arrays


def break_agent(run: Run) -> None:
    """Begin to collect; one agent fails in the second chunk; leave it as an interruption does."""
    job = CollectionJob(HistoryStore(run.config), run.split.train_tasks)
    for count, chunk in enumerate(job.source.run(job.steps), 1):
        job.writer.append(chunk)
        job.source.moments[0, BROKEN] = np.inf
        if count == 2:
            break
    job.save()


@pytest.fixture(scope="module")
def healthy(smoke, tmp_path_factory) -> Run:
    run = Run.open(smoke(tmp_path_factory.mktemp("healthy"), *WORDS))
    collect(run)
    return run


@pytest.fixture(scope="module")
def failed(smoke, tmp_path_factory) -> Run:
    """The run of the healthy agents, with a fault in one of them."""
    run = Run.open(smoke(tmp_path_factory.mktemp("failed"), *WORDS))
    break_agent(run)
    collect(run)
    return run


def files(run: Run, agent: int) -> dict:
    return load_history(HistoryStore(run.config).folder(run.split.train_tasks[agent])).manifest[
        "files"
    ]


def test_the_histories_are_those_of_a_run_without_the_fault_up_to_it(healthy, failed):
    same = [files(healthy, k) == files(failed, k) for k in range(len(failed.split.train_tasks))]
    assert same == [k != BROKEN for k in range(len(same))]
    good, bad = (
        load_history(HistoryStore(run.config).folder(run.split.train_tasks[BROKEN]))
        for run in (healthy, failed)
    )
    assert bad.stopped_at == CHUNK_STEPS
    for name, array in bad.learned.items():
        np.testing.assert_array_equal(array, good.arrays[name][:, :CHUNK_STEPS])


def test_a_failure_is_remembered_over_an_interruption(smoke, tmp_path, capsys):
    run = Run.open(smoke(tmp_path, *WORDS))
    break_agent(run)
    collect(run)
    name = task_name(run.split.train_tasks[BROKEN])
    said = f"1 source agent stopped learning ({name} at step {CHUNK_STEPS})"
    assert capsys.readouterr().err.count(said) == 1


def test_training_reads_the_part_that_was_learned_from_and_says_so_once(healthy, failed, capsys):
    whole = load_training_data(healthy, build_method(healthy.config.method))
    assert capsys.readouterr().err == ""
    data = load_training_data(failed, build_method(failed.config.method))
    assert capsys.readouterr().err.count("training uses their histories up to there") == 1
    tasks, actors = len(failed.split.train_tasks), whole.train.lengths.size
    lost = len(whole.train) * (1 - CHUNK_STEPS / 2200) / tasks
    assert len(whole.train) - len(data.train) == pytest.approx(lost, rel=0.05)
    assert data.train.lengths.size == actors


def test_training_without_any_history_to_learn_from_is_a_sentence(failed, tmp_path):
    root = shutil.copytree(failed.config.root, tmp_path / "root")
    run = Run.open(type(failed.config)(**(vars(failed.config) | {"root": str(root)})))
    for task in run.split.train_tasks:
        path = HistoryStore(run.config).folder(task) / "manifest.json"
        write_checked_json(path, read_checked_json(path) | {"stopped_at_step": 0})
    with pytest.raises(ConfigError, match="no whole episode"):
        load_training_data(run, build_method(run.config.method))


def test_the_results_and_the_report_name_it_and_the_sources_line_leaves_it_out(failed):
    run = evaluated_run(failed.config)
    report(run)
    name = task_name(run.split.train_tasks[BROKEN])
    results = json.loads((run.folder / "results.json").read_text())
    assert results["stopped_agents"] == {name: CHUNK_STEPS}
    assert results["references"]["source"]["train"]["num_episodes"] > 10
    page = (run.folder / "report.html").read_text()
    assert f"{name} at step {CHUNK_STEPS}." in " ".join(page.split())
