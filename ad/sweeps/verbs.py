"""The verbs of many runs, whose options the table of verbs in `ad.cli` declares.

Modules that import torch are imported inside a function, so that a wrong option takes no time.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ad.errors import ConfigError, NumericError
from ad.runtime.console import info
from ad.sweeps.launchers.options import Jobs

if TYPE_CHECKING:
    from ad.config.schema import Experiment

COMMITTED = Path("configs/records")  # the folder of the project's own sweeps
LOGS = Path("logs")


def sweep(
    file: Path | None,
    board: str,
    groups: list[str],
    rows: list[str],
    seeds: list[int],
    root: Path | None,
    shard: tuple[int, int],
    keep: bool,
    status: bool,
    table: bool,
    runs: bool,
    retry: bool,
    release: Path | None,
    merge: list[str],
    jobs: Jobs,
) -> None:
    """Make the runs of a sweep that have no record, then its page."""
    if file is None and not status:
        raise ConfigError("--file is missing: only --status true is for all sweeps")
    from ad.sweeps.load import load_sweep
    from ad.sweeps.pages import page_marks, write_page
    from ad.sweeps.records import merge_records
    from ad.sweeps.run import list_runs, new_measure, prepare_missing, run_missing, take_shard

    if file is None:
        for path in sorted(COMMITTED.glob("*.yaml")):
            for name in load_sweep(path).config.boards or [""]:
                plan = load_sweep(path, name)
                if name:
                    info(f"# {path}, board {name}")
                list_runs(plan.records, new_measure(plan), plan.planned_runs(), LOGS / path.stem)
        return
    plan = load_sweep(file, board)
    if merge:
        return merge_records(plan.records, [Path(name) for name in merge])
    page_marks(plan)  # raises an error before any run is made
    root, measure = root or LOGS / file.stem, new_measure(plan)
    own = take_shard(measure, plan.select(groups, rows, seeds), *shard)
    if release:
        from ad.sweeps.released import release_models

        return release_models(plan, own, root, release)
    if status:
        return list_runs(plan.records, measure, own, root)
    failure = None
    if not table:
        missing = [] if jobs.dry else prepare_missing(plan.records, measure, own, retry)
        try:
            if jobs.launcher == "none":
                run_missing(plan.records, measure, missing, root, keep)
            elif missing or jobs.dry:
                from ad.sweeps.launchers.launch import launch

                own_jobs = replace(jobs, words=[*jobs.words, "--runs", "true"])
                if not launch(own_jobs, root / "jobs", len(measure.bundles(own))):
                    return
        except NumericError as error:  # raised after the page, which has the other runs
            failure = error
    if not runs:
        write_page(plan, root)
    if failure:
        raise failure


def seeds(
    config: "Experiment", seeds: Sequence[int], shard: tuple[int, int], fresh: bool, jobs: Jobs
) -> None:
    """Run an experiment with several training seeds, and print the table of these runs.

    A NumericError of one run is raised after the table.
    """
    if len(set(seeds)) < len(seeds) or not seeds:
        raise ConfigError(f"--seeds must be different numbers, not {list(seeds)}")
    from ad.pipeline import run_all
    from ad.runtime.locks import locked_all
    from ad.runtime.run import Run, with_seed
    from ad.sweeps.launchers.launch import launch
    from ad.sweeps.results_table import print_table

    def print_seeds(seeds: Sequence[int]) -> None:
        print_table(Path(config.root), [with_seed(config, seed).name for seed in seeds])

    if fresh and jobs.launcher != "none":  # a job that is started again would begin anew
        raise ConfigError("--fresh true cannot be given to a --launcher: remove the folder instead")
    own, failure = seeds[shard[0] - 1 :: shard[1]], None
    configs = [with_seed(config, seed) for seed in own]
    try:
        if jobs.launcher != "none":
            if not launch(jobs, Path(config.root) / "logs" / "jobs", len(seeds)):
                return
        else:
            with locked_all(each.folder for each in configs):
                # Other seeds may be run by other processes, which need the same histories.
                run_all([Run.open(each, fresh) for each in configs], fresh, wait=True)
    except NumericError as error:
        failure = error
    if own and all(each.folder.exists() for each in configs):  # not that of a job that was lost
        print_seeds(own)
    if failure:
        raise failure


def table(runs: list[str], root: Path) -> None:
    """Print the results of runs as a table."""
    from ad.sweeps.results_table import print_table

    print_table(root, runs)


def verify_entry(
    bundle: Path, minutes: float, run_program: bool, file: Path | None, board: str
) -> None:
    """Say whether the claim of an entry stands; if so, add its record to the entries of a sweep.

    The sweep is that of `file`, if it is given. Raises the errors of `ad.entry.verify_entry`, and
    ConfigError for a sweep without entries or an entry that plays no cell of it.
    """
    from ad import entry
    from ad.sweeps.load import load_sweep
    from ad.sweeps.measures import entry_record, same_protocol
    from ad.sweeps.records import add_records

    if file is None:
        entry.verify_entry(bundle, minutes, run_program)
        return
    plan = load_sweep(file, board)
    if not plan.entries:
        raise ConfigError(f"{file} names no file of entries")
    planned = same_protocol(plan, entry.read_config(bundle))  # before minutes of evaluation
    verdict = entry.verify_entry(bundle, minutes, run_program)
    record = entry_record(planned, verdict.config.name, verdict.again, verdict.policy_sha256)
    add_records(plan.entries, [record])
    info(f"{record.row} is in {plan.entries}: --table true writes the page of the board")
