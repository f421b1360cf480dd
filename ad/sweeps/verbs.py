"""The verbs of many runs, whose options the table of verbs in `ad.cli` declares.

Modules that import torch are imported inside a function, so that a wrong option takes no time.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ad.errors import ConfigError
from ad.sweeps.launchers.options import Jobs

if TYPE_CHECKING:
    from ad.config.schema import Experiment
    from ad.sweeps.leaderboard.plan import Board

LEADERBOARD = Path("configs/records/leaderboard.csv")
FINDINGS = Path("configs/records/findings.csv")
SWEEP_ONLY = ("merge", "hparams", "retry")  # options of sweeps whose failures have records


def seeds(
    config: "Experiment", seeds: Sequence[int], shard: tuple[int, int], fresh: bool, jobs: Jobs
) -> None:
    """Run an experiment with several training seeds, and print the table of these runs."""
    if len(set(seeds)) < len(seeds) or not seeds:
        raise ConfigError(f"--seeds must be different numbers, not {list(seeds)}")
    from ad.sweeps.launchers.launch import launch_experiment
    from ad.sweeps.seeds import print_seeds, run_seeds

    number, count = shard
    if jobs.launcher == "none":
        if own := seeds[number - 1 :: count]:
            run_seeds(config, own, fresh)
    elif launch_experiment(jobs, config, fresh, len(seeds)):
        print_seeds(config, seeds)


def tune(config: "Experiment", fresh: bool, jobs: Jobs) -> None:
    """Search settings of the source algorithm, in this process or in one job."""
    from ad.runtime.locks import locked
    from ad.sweeps.launchers.launch import launch_experiment
    from ad.sweeps.tuning.report import tune_and_report

    if jobs.launcher == "none" or launch_experiment(jobs, config, fresh, 1):
        with locked(config.folder):
            tune_and_report(config, fresh)


def study(folder: Path, questions: list[str], seeds: list[int], **options: Any) -> None:
    """Run a study, which asks what one setting changes, and write its page."""
    from ad.sweeps.study.plan import load_study
    from ad.sweeps.study.report import make_page

    plan = load_study(folder, questions, seeds or None)
    _sweep("study", plan.records, plan.planned_runs(), lambda: make_page(folder), **options)


def results(file: Path, page: Path | None, rows: list[str], **options: Any) -> None:
    """Run the rows of a file in configs/records and write its tables."""
    from ad.runtime.files import read_marked
    from ad.sweeps.results import load_results
    from ad.sweeps.results_report import write_tables

    plan = load_results(file)
    runs = plan.planned_runs(rows)
    page = page or plan.page
    read_marked(page, [table.name for table in plan.tables])
    _sweep("results", plan.records, runs, lambda: write_tables(plan, page), **options)


def findings(
    file: Path,
    records: Path,
    root: Path | None,
    shard: tuple[int, int],
    keep: bool,
    status: bool,
    table: bool,
    runs: bool,
    jobs: Jobs,
) -> None:
    """Look inside the models of a file and write the tables of its page."""
    from ad.runtime.files import read_marked
    from ad.sweeps.findings.plan import load_findings
    from ad.sweeps.findings.report import (
        list_findings,
        make_findings,
        missing_runs,
        write_findings,
    )
    from ad.sweeps.planned import shard as take_shard

    plan, root = load_findings(file, records), root or Path("logs/findings")
    read_marked(plan.page, plan.tables)
    planned = take_shard(plan.planned_runs(), *shard)
    if status:
        return list_findings(plan, planned)
    if not table:
        if jobs.launcher == "none":
            make_findings(plan, planned, root, keep)
        elif not _launch(planned, jobs, root, lambda: missing_runs(plan, planned)):
            return
    if not runs:
        write_findings(plan)


def leaderboard(
    file: Path,
    board: str,
    small: bool,
    worlds: list[str],
    methods: list[str],
    records: Path,
    **options: Any,
) -> None:
    """Evaluate every method in every world of a board, and write the page of the leaderboard."""
    from ad.sweeps.leaderboard.further_runs import with_further_runs
    from ad.sweeps.leaderboard.plan import load_board
    from ad.sweeps.leaderboard.report import write_leaderboard
    from ad.sweeps.records import read_records

    if small and board not in ("", "small"):
        raise ConfigError(f"--small true is --board small, not --board {board}")
    name = "small" if small else board or "core"
    plain = load_board(file, name, worlds, methods)
    if not any(cell.runs for cell in plain.cells):
        problems = (f"{cell.world} / {cell.method}: {cell.problem}" for cell in plain.cells)
        raise ConfigError("no cell can be made:\n  " + "\n  ".join(problems))
    page = "leaderboard_selection" if worlds or methods else f"leaderboard_{name}"
    page = page.removesuffix("_core")

    def whole_board() -> "Board":  # the runs that were made may show that further ones are needed
        return plain if methods else with_further_runs(plain, read_records(records))

    def write_page() -> None:
        write_leaderboard(whole_board(), records, records.parent, page)

    _sweep("leaderboard", records, whole_board().planned_runs(), write_page, **options)


def sweep(file: Path | None, records: Path | None, status: bool, **options: Any) -> None:
    """Run the study, tables, leaderboard or findings of `file`; without it list those of all."""
    if file is None and not status:
        raise ConfigError("--file is missing: only --status true is for all sweeps")
    configs = Path("configs")
    committed = [path.parent for path in sorted(configs.glob("*/study.yaml"))]
    for pattern in ("records/*.yaml", "*/leaderboard.yaml", "*/findings.yaml"):
        committed += sorted(configs.glob(pattern))
    for path in [file] if file else committed:
        _run_file(path, records, options | {"status": status})


def _run_file(file: Path, records: Path | None, options: dict[str, Any]) -> None:
    """Run the sweep of `file` with the default boards and rows. Raises ConfigError."""
    if file.is_dir():
        return study(file, [], [], **options)
    from ad.config.parser import read_text
    from ad.config.yaml_io import YamlFile

    content = YamlFile(read_text(file)).data
    keys = content.keys() if isinstance(content, dict) else ()
    if "models" in keys:  # findings have tables, too
        own = {name: options[name] for name in options if name not in SWEEP_ONLY}
        return findings(file, records or FINDINGS, **own)
    if "tables" in keys:
        return results(file, None, [], **options)
    if "boards" in keys:
        return leaderboard(file, "", False, [], [], records or LEADERBOARD, **options)
    raise ConfigError(f"{file} is no sweep: it has no models, tables or boards")


def table(runs: list[str], root: Path, update: Path | None, mark: str) -> None:
    """Print the results of all runs under logs/ as a Markdown table, grouped by experiment."""
    from ad.sweeps.results_table import print_table

    print_table(root, runs, update, mark)


def _sweep(
    name: str,
    records: Path,
    planned: Sequence,
    write_page: Callable[[], None],
    root: Path | None,
    shard: tuple[int, int],
    keep: bool,
    status: bool,
    table: bool,
    runs: bool,
    merge: list[str],
    hparams: Path | None,
    retry: bool,
    jobs: Jobs,
) -> None:
    """Make the `planned` runs without a line in `records`, then the page."""
    from ad.sweeps.planned import shard as take_shard
    from ad.sweeps.records import merge_records
    from ad.sweeps.runs import list_runs, missing_trainings, run_missing

    root = root or Path("logs") / name
    if merge:
        return merge_records(records, [Path(file) for file in merge])
    planned = take_shard(planned, *shard)
    if hparams:
        from ad.sweeps.hparams import write_hparams

        return write_hparams(records, planned, hparams)
    if status:
        return list_runs(records, planned, root)
    if not table:
        arguments = records, planned, root, keep, retry
        if jobs.launcher == "none":
            run_missing(*arguments)
        elif not _launch(planned, jobs, root, lambda: missing_trainings(*arguments)):
            return
    if not runs:
        write_page()


def _launch(planned: Sequence, jobs: Jobs, root: Path, missing: Callable[[], Sequence]) -> bool:
    """Start jobs that share the `planned` runs, unless none is `missing()`.

    Returns False if the jobs are only printed.
    """
    from ad.sweeps.launchers.launch import launch
    from ad.sweeps.planned import group_by_experiment, group_by_training

    if not jobs.dry and not missing():
        return True
    most = len(group_by_experiment(group_by_training(planned)))  # which is what shards share
    return launch(replace(jobs, words=[*jobs.words, "--runs", "true"]), root / "jobs", most)
