"""Fixtures of many tests: a tiny experiment, its histories, and random windows."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from ledger import Ledger
from training_run import SHORT, train, words_of

from ad.collection.collect import collect
from ad.config.parser import load
from ad.data.histories import HistoryStore
from ad.data.spec import Spec
from ad.evaluation.evaluate import evaluate
from ad.runtime.parallel import limit_threads
from ad.runtime.run import Run
from envs.minigrid.table_files import VARIABLE
from envs.spaces import Discrete

# The same examples in every run, and no limit on their time, which a busy machine would exceed.
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")

SMOKE = Path(__file__).parent.parent / "configs" / "smoke.yaml"

FAULTS = Ledger()


@pytest.fixture(scope="session")
def ledger() -> Ledger:
    """The ledger in which tests count the faults that they tried."""
    return FAULTS


def pytest_configure(config):
    """Restore the handler of SIGINT, which a shell ignores for its background jobs.

    The processes that the tests start and interrupt would otherwise ignore it too. Tables of
    MiniGrid are kept in a temporary folder.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)  # also in the fixtures of a module, which come before those of a test
    if VARIABLE not in os.environ:  # the processes of a parallel run share the folder of the first
        folder = tempfile.TemporaryDirectory(prefix="tables")
        os.environ[VARIABLE] = folder.name
        config.add_cleanup(folder.cleanup)


def pytest_terminal_summary(terminalreporter):
    """Print the counts of faults, if any were tried."""
    if FAULTS.entries:
        terminalreporter.section("faults")
        for line in FAULTS.lines():
            terminalreporter.line(line)


@pytest.fixture(autouse=True)
def one_thread():
    """Set one thread before each test: models are too small for more."""
    limit_threads(1)
    torch.set_num_threads(1)


@pytest.fixture
def small_disk():
    """small_disk(folder, kib) mounts a disk there; skips the test without the right to mount."""
    mounted = []

    def mount(folder: Path, kib: int = 256) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)]
        if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only root can mount a small disk")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="session")
def smoke():
    """smoke(root, *words) returns configs/smoke.yaml changed by `words`, in `root`."""

    def experiment(root, *words: str):
        fixed = ["--config_path", str(SMOKE), "--root", str(root), "--device", "cpu"]
        return load([*fixed, "--threads", "1", *words])

    return experiment


@pytest.fixture(scope="session")
def collected(smoke, tmp_path_factory):
    """collected(name, *words) returns an experiment whose histories are collected already."""
    root = tmp_path_factory.mktemp("collected")
    source = ["--source.algorithm", "noise_distillation", "--source.env_steps", "800"]
    collect(Run.open(smoke(root, "--name", "source", *source)))

    def experiment(name: str, *words: str):
        return smoke(root, "--name", name, *source, *words)

    return experiment


@pytest.fixture(scope="session")
def spec():
    """The spec of a 3 x 3 room with episodes of four steps."""
    return Spec({"": Discrete(9, (3, 3))}, 5, (0.0, 1.0), (0.0, 1.0), 4)


@pytest.fixture(scope="session")
def random_window(spec):
    """random_window(count, length, seed) returns windows [count, length + 1], padded at entry 0."""

    def draw(count: int, length: int, seed: int):
        rng = np.random.default_rng(seed)
        sizes = {"observation": 9, "action": 5, "reward": 2, "next_observation": 9, "time": 4}
        window = {
            name: torch.from_numpy(rng.integers(size, size=(count, length + 1)))
            for name, size in sizes.items()
        }
        window["reward"] = window["reward"].float()
        for name, value in spec.padding.items():
            window[name][:, 0] = value
        window["step"] = (torch.arange(length + 1) - 1).clamp(min=0).repeat(count, 1)
        window["valid"] = torch.arange(length + 1).repeat(count, 1) > 0
        return window

    return draw


@pytest.fixture(scope="session")
def experiment(collected, tmp_path_factory):
    """experiment(*words, **changes) returns an experiment of eight train steps with a new name.

    `changes` are settings with __ for each dot, e.g. training__steps="4".
    """

    def build(*words: str, **changes: str):
        name = tmp_path_factory.mktemp("run").name
        settings = SHORT | {path.replace("__", "."): value for path, value in changes.items()}
        return collected(name, *words_of(settings), *words)

    return build


@pytest.fixture(scope="module")
def evaluated(experiment):
    """A run that is trained and evaluated; only to be read."""
    run = train(experiment(training__precision="float32"))
    evaluate(run)
    return run


@pytest.fixture(scope="session")
def whole(experiment) -> Run:
    """A run trained without an interruption; tests only read it."""
    return train(experiment(training__precision="float32"))


@pytest.fixture
def trained(whole, experiment) -> Run:
    """A copy of the run `whole`, which tests may damage."""
    config = experiment(training__precision="float32")
    shutil.copytree(whole.folder, Run.open(config).folder, dirs_exist_ok=True)
    return Run.open(config)


@pytest.fixture(scope="module")
def original(smoke, tmp_path_factory) -> Path:
    """The folder of a complete history, of which `history` is a copy; tests only copy it."""
    words = ["--source.algorithm", "noise_distillation", "--source.env_steps", "400"]
    words += ["--split.num_train_tasks", "1", "--data.context_length", "8"]
    run = Run.open(smoke(tmp_path_factory.mktemp("original"), *words))
    collect(run)
    return HistoryStore(run.config).folder(run.split.train_tasks[0])


@pytest.fixture
def history(original, tmp_path) -> Path:
    """A copy of the folder of a complete history, which tests may damage."""
    return Path(shutil.copytree(original, tmp_path / "history"))
