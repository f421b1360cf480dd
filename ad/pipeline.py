"""The verbs of one run, alone or in turn: collect, train, evaluate, record and report.

A verb takes an opened run, so that a process builds its split and its world once. Recording and
reporting are imported inside functions, since importing matplotlib takes half a second.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress

from ad.collection import collect as collection
from ad.config.schema import Experiment
from ad.data.histories import HistoryStore
from ad.errors import MachineError, NumericError
from ad.evaluation import evaluate as evaluation
from ad.evaluation.source_returns import source_warning
from ad.evaluation.transfer import evaluate_worlds
from ad.methods import build_method
from ad.runtime import console
from ad.runtime.console import info, warn
from ad.runtime.files import remove
from ad.runtime.locks import locked
from ad.runtime.run import Run
from ad.runtime.signals import defer_signals
from ad.training import checkpoints
from ad.training.data_parallel import ALONE, SingleProcess, check_processes, joined
from ad.training.loop import new_trainer
from ad.training.loop import train as train_loop
from ad.training.validation import validate


def collect(run: Run, fresh: bool = False, wait: bool = False) -> None:
    """Collect the learning histories that are missing; with `fresh`, all of them.

    With `wait`, waits for another process that collects into the same dataset.
    """
    if not len(run.history_tasks):
        name = run.config.method.name
        return info(f"collect: no histories: {name} learns in the worlds themselves")
    with run.timed("collect_s"):
        collected = collection.collect(run, fresh, wait)
    if fresh:
        remove(run.folder / "source")  # curves of the earlier histories
    collection.write_source_curves(run)
    total, folder = len(run.split.train_tasks), HistoryStore(run.config).path
    info(f"collect: {collected} of {total} histories collected now, all are in {folder}")
    if warning := source_warning(run):
        warn(warning)


def train(run: Run, fresh: bool = False, processes: SingleProcess = ALONE) -> None:
    """Train a run from its newest checkpoint; with `fresh`, from the start.

    Several `processes` train one run. Raises NumericError if it cannot be trained.
    """
    if not build_method(run.config.method).has_model:
        return info(f"train: no model: {run.config.method.name} learns in the evaluated tasks")
    trainer = new_trainer(run, processes, fresh)
    if not trainer.train_steps_left:
        return info(f"train: already done ({trainer.step} steps), in {run.folder}")
    try:
        with defer_signals(), closing(run.log):
            train_loop(trainer, validate, processes.stop_requested)
    finally:
        newest = checkpoints.newest(run.folder / "checkpoints")
        if not trainer.train_steps_left and newest:  # None if a last validation failed
            info(f"train: {trainer.step} steps, {newest}")


def train_experiment(config: Experiment, fresh: bool = False) -> None:
    """Train the run of `config`, under torchrun as one of its processes."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        return train_in_processes(config, fresh)
    with locked(config.folder):
        train(Run.open(config, fresh), fresh)


def train_in_processes(config: Experiment, fresh: bool = False) -> None:
    """Train the run of `config` as one of the processes that torchrun started.

    The first of them locks and opens the folder of the run, and the others wait for that.
    """
    check_processes(config, os.environ["WORLD_SIZE"])
    with ExitStack() as held, joined(config) as processes:

        def open_folder() -> None:
            held.enter_context(locked(config.folder))
            Run.open(config, fresh)

        processes.broadcast(open_folder)
        train(processes.run(config), fresh, processes)


def evaluate(run: Run, fresh: bool = False) -> None:
    """Evaluate the trained model, also in `evaluation.worlds`, where results are missing.

    With `fresh`, evaluate everywhere.
    """
    evaluated = evaluation.evaluate(run, fresh)
    info(f"evaluate: {'done' if evaluated else 'already done'}, {run.folder / 'results.csv'}")
    for world in evaluate_worlds(run, fresh):
        info(f"evaluate: done in another world, {world.folder / 'results.csv'}")


def record(run: Run, fresh: bool = False) -> None:
    """Record the videos that are missing or out of date; with `fresh`, all of them."""
    from ad.reporting import record as recording

    if counts := recording.record(run, fresh):
        written, total = counts
        info(f"record: {written} of {total} videos written, in {run.videos}")
    else:
        changing = " with tasks that change" if run.config.env.change else ""
        info(f"record: no videos, {run.config.env.id}{changing} cannot draw its episodes")


def _record_or_warn(run: Run, fresh: bool) -> None:
    """Record the videos, or warn that they cannot be made: the results do not depend on them."""
    from ad.reporting import record as recording

    try:
        record(run, fresh)
    except (MachineError, recording.ReplayError) as error:
        warn(f"no videos: {error}")


def demo(run: Run) -> None:
    """Write the page in which the model plays. Takes a second, so it is always written anew."""
    from ad.reporting.demo import write_demo

    info(f"demo: {write_demo(run)}")


def _demo_if_supported(run: Run) -> None:
    """Write the page in which the model plays, if there is one for its world and its kind."""
    from ad.reporting.demo import PAGE, UnsupportedError

    (run.folder / PAGE).unlink(missing_ok=True)
    with suppress(UnsupportedError):
        demo(run)


def report(run: Run) -> None:
    """Write the report and print its table. Takes seconds, so it is always written anew."""
    from ad.reporting import report as reporting

    path = reporting.report(run)
    info(path.with_name("table.md").read_text(encoding="utf-8"))
    info(f"report: {path}")


def run_experiment(run: Run, fresh: bool = False) -> None:
    """Collect, train, evaluate, record and report one run."""
    run_all([run], fresh)


def run_all(runs: Sequence[Run], fresh: bool = False, wait: bool = False) -> None:
    """Collect, train, evaluate, record and report; `fresh` repeats all but the collection.

    Where the demo supports a run, its page is written. With `wait`, waits for another process that
    collects into the same dataset. A run that raises NumericError does not stop the others; the
    error is raised at the end. Videos that cannot be made are a warning.
    """
    failures: dict[str, NumericError] = {}
    for run in runs:
        try:
            collect(run, wait=wait)
            train(run, fresh)
            evaluate(run, fresh)
            _record_or_warn(run, fresh)
            _demo_if_supported(run)
            report(run)
        except NumericError as error:
            if len(runs) > 1:
                console.error(f"{run.config.name}: {error}")
            failures[run.config.name] = error
    if failures and len(runs) == 1:
        raise failures.popitem()[1]
    if failures:
        raise NumericError(f"{len(failures)} of {len(runs)} runs failed: {', '.join(failures)}")
