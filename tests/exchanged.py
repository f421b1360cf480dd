"""Small histories for tests of other formats, and where the tests put them."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from synthetic import synthetic_history, write_synthetic
from training_run import words_of

from ad.collection.collect import collect
from ad.config.parser import load_file
from ad.data.histories import HistoryStore
from ad.data.store import load_history
from ad.exchange.imports import import_histories
from ad.registry import EXPORTS
from ad.runtime.run import Run

HERE = Path(__file__).parent
PLACES = {"minari": "rooms/noisy-v0", "parquet": "noisy", "xland": "noisy.hdf5"}  # of exports
without_pyarrow = pytest.mark.skipif(not find_spec("pyarrow"), reason="needs pyarrow")
FORMATS = [pytest.param(name, marks=[without_pyarrow] * (name == "parquet")) for name in EXPORTS]
SYNTHETIC = 3, 2, 60, 12  # tasks, actors, transitions of each, env steps of an episode
SOURCE = {
    **{"name": "source", "source.algorithm": "noise_distillation", "source.num_envs": "3"},
    **{"source.env_steps": "90", "split.num_train_tasks": "3", "data.context_length": "8"},
}


def work_in(folder: Path, monkeypatch) -> Path:
    """Make `folder` the one in which a test works, and in which Minari keeps its data sets."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
    monkeypatch.chdir(folder)
    return folder


def collected_run(smoke, root: Path) -> Run:
    """A run whose histories are collected: three tasks with three actors of 30 transitions."""
    run = Run(smoke(root, *words_of(SOURCE)))
    collect(run)
    return run


def histories(run: Run) -> list[dict]:
    """The arrays of the histories of the train tasks, in their order."""
    folders = HistoryStore(run.config).folders(run.split.train_tasks)
    return [{**load_history(folder).arrays} for folder in folders]


def imported(name: str, place: str, root: Path) -> Run:
    import_histories(name, place, root / "mine.yaml", str(root))
    return Run(load_file(root / "mine.yaml", root=str(root)))


def words(run: Run, name: str, place: str) -> list[str]:
    """The words of a command that exports the histories of `run`."""
    settings = SOURCE | {"root": run.config.root, "device": "cpu", "threads": "1"}
    smoke = HERE.parent / "configs" / "smoke.yaml"
    chosen = ["--format", name, "--to", place, "--config_path", str(smoke)]
    return [*chosen, *words_of(settings)]


def write_xland(path: Path) -> list[dict]:
    """A file in the layout of the published data sets: three tasks, two actors, 60 steps."""
    write_synthetic(path, *SYNTHETIC)
    num_tasks, *shape = SYNTHETIC
    return [synthetic_history(task, *shape) for task in range(num_tasks)]
