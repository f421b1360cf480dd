"""What one setting does to a row: run the study in configs/study and make its page.

    python -m scripts.study [--questions encoder,stride] [--seeds 0,1] [--shard 1/2]
    python -m scripts.study --dry       # the runs that are done and those that are missing
    python -m scripts.study --table     # only the page, from the raw rows

A run that is finished is a line of configs/study/rows.csv, and is not made again. Its folder, under
logs/study, is then removed, but for --keep; the histories stay, for the runs to come. Interrupted,
the same command goes on, in the middle of a run too. Shards may run at the same time.
"""

import argparse
import itertools
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from ad.errors import ConfigError, NumericError
from ad.runtime import console
from ad.runtime import signals as interruption
from ad.runtime.console import info, open_streams
from ad.runtime.locks import locked
from ad.sweeps.study import Study, Trial, families, load_study, shard, trainings
from scripts import collect, evaluate, train
from scripts.cli import guarded, locked_runs, numbers


def main(words: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    seeds = None if words.seeds is None else numbers("--seeds", words.seeds)
    names = words.questions.split(",") if words.questions else []
    part, parts = _shard(words.shard)
    study = load_study(words.folder, names, seeds)
    trials = shard(study.trials(), part, parts)
    if words.dry:
        show(study, trials)
        return
    if not words.table:
        run_missing(study, trials, words.root, words.keep)
    make_page(words.folder)


def run_missing(study: Study, trials: Sequence[Trial], root: Path, keep: bool = False) -> None:
    """Make those of `trials` that have no row yet, in folders under `root`.

    A run whose numbers go wrong, as they would again, does not stop the others: NumericError is
    raised at the end.
    """
    from ad.runtime.devices import choose_device
    from ad.runtime.files import remove
    from ad.sweeps.study_rows import read_rows

    rows, failed = read_rows(study.folder), []
    groups = {bool(waiting): [] for waiting in (0, 1)}
    for group in trainings(trials):
        groups[any(trial.key not in rows for trial in group)].append(group)
    finished, missing, count = groups[False], groups[True], len(groups[True])
    if choose_device(study.base).type == "cuda":
        missing = _side_by_side(missing, root)
    bar = tqdm(missing, desc="study", total=count, unit=" trainings", disable=None)
    for group in itertools.chain(finished, bar):
        try:
            for trial in group:
                if trial.key not in rows:
                    _make(study, trial, root)
            if not keep:
                remove(root / "logs" / group[0].training)
        except NumericError as error:
            failed.append(group[0].training)
            console.error(f"{failed[-1]}: {error}")
    if failed:
        raise NumericError(f"{len(failed)} of {count} trainings failed: {', '.join(failed)}")


def show(study: Study, trials: Sequence[Trial]) -> None:
    """Print the runs, each with "done" or "missing"."""
    from ad.sweeps.study_rows import read_rows

    rows = read_rows(study.folder)
    for trial in trials:
        state = "done" if trial.key in rows else "missing"
        info(f"{state:7}  seed {trial.config.training.train_seed}  {trial.changed}")
    missing = sum(trial.key not in rows for trial in trials)
    info(f"study: {missing} of {len(trials)} runs are missing")


def make_page(folder: Path) -> None:
    """Make the page of all questions and seeds from the rows in `folder`."""
    from ad.runtime.locks import locked
    from ad.sweeps.study_report import write_page

    study = load_study(folder)
    with locked(folder, wait=True):
        used = write_page(study)
    info(f"study: {used} of {len(study.trials())} runs in {folder / 'README.md'}")


def _side_by_side(groups: Sequence[list[Trial]], root: Path) -> Iterator[list[Trial]]:
    """The same groups, seeds together, each trained with the other seeds of its kind."""
    for family in families(groups):
        configs = [replace(group[0].config, root=str(root)) for group in family]
        root.mkdir(parents=True, exist_ok=True)
        with locked_runs(configs), suppress(NumericError):  # one that fails does so again, alone
            with locked(root / "histories", wait=True):
                for config in configs:
                    collect.main(config)
            train.train_all(configs)
        yield from family


def _make(study: Study, trial: Trial, root: Path) -> None:
    """Collect, train, evaluate, and write the row."""
    from ad.runtime.run import Run
    from ad.sweeps.study_rows import add_row, measured

    root.mkdir(parents=True, exist_ok=True)
    config = replace(trial.config, root=str(root))
    with locked_runs([config]):
        with locked(root / "histories", wait=True):  # which another shard may need too
            collect.main(config)
        train.main(config)
        evaluate.main(config)
        row = measured(trial, Run.open(config))
    with locked(study.folder, wait=True):
        add_row(study.folder, row)


def _shard(word: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,4})/(\d{1,4})", word)
    part, parts = map(int, found.groups()) if found else (0, 0)
    if not 1 <= part <= parts:
        raise ConfigError(f"--shard must be 1/2, 2/2 or the like, not {word!r}")
    return part, parts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m scripts.study", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--folder", type=Path, default=Path("configs/study"), help="of the study")
    parser.add_argument("--root", type=Path, default=Path("logs/study"), help="of what runs write")
    parser.add_argument("--questions", help="names with commas between; all without")
    parser.add_argument("--seeds", help="training seeds with commas between, e.g. 0,1")
    parser.add_argument("--shard", default="1/1", help="the first of two parts is 1/2")
    parser.add_argument("--keep", action="store_true", help="the folders of finished runs")
    parser.add_argument("--dry", action="store_true", help="list the runs and stop")
    parser.add_argument("--table", action="store_true", help="make the page and stop")
    words = parser.parse_args()
    open_streams()
    interruption.install()
    sys.exit(guarded(lambda: main(words)))
