"""The command line of verbs of many runs, such as study, results and leaderboard.

Modules that read configurations or import torch are imported inside a function, so that `--help`
and a wrong option take no time.
"""

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ad.errors import ConfigError
from ad.reporting.verbs import verb_parser
from ad.sweeps.launchers.options import (
    SweepParser,
    add_flag,
    add_launcher_options,
    take_launcher_options,
)

if TYPE_CHECKING:
    from ad.sweeps.leaderboard.plan import Board


def study(argv: Sequence[str]) -> None:
    """Run the study in configs/study, which asks what one setting changes, and write its page.

    A finished run is a line of configs/records/study.csv and is not made again; the same command
    resumes the others. Several processes may each make one shard of the runs.
    """
    parser = _sweep_parser("study", study)
    parser.add_argument("--folder", default="configs/study", type=Path, help="the folder's path")
    parser.add_argument("--questions", help="names with commas between; by default all")
    parser.add_argument("--seeds", help="training seeds with commas between, e.g. 0,1")
    options = parser.parse_args(argv)
    seeds = None if options.seeds is None else whole_numbers("--seeds", options.seeds)
    questions = options.questions.split(",") if options.questions else []
    from ad.sweeps.study.plan import load_study
    from ad.sweeps.study.report import make_page

    plan = load_study(options.folder, questions, seeds)
    _sweep(plan.records, plan.planned_runs(), lambda: make_page(options.folder), options, argv)


def results(argv: Sequence[str]) -> None:
    """Run the rows of a file in configs/records and write its tables, e.g. those of README.md.

    A finished run is a line of the CSV file beside it and is not made again; the same command
    resumes the others. Several processes may each make one shard of the runs.
    """
    parser = _sweep_parser("results", results)
    parser.add_argument(
        "--file", default="configs/records/results.yaml", type=Path, help="the rows"
    )
    parser.add_argument(
        "--page", type=Path, help="the file with the tables; by default as the rows say"
    )
    parser.add_argument("--rows", help="titles with commas between; by default all")
    options = parser.parse_args(argv)
    titles = [title.strip() for title in options.rows.split(",")] if options.rows else []
    from ad.runtime.files import read_marked
    from ad.sweeps.results import load_results
    from ad.sweeps.results_report import write_tables

    plan = load_results(options.file)
    runs = plan.planned_runs(titles)
    page = options.page or plan.page
    read_marked(page, [table.name for table in plan.tables])
    _sweep(plan.records, runs, lambda: write_tables(plan, page), options, argv)


def findings(argv: Sequence[str]) -> None:
    """Look inside the models of configs/interpret/findings.yaml and write the tables of its page.

    A model that is analyzed has its values in configs/records/findings.csv and is not trained
    again; the same command resumes the others. Several processes may each make one shard of
    the models.
    """
    parser, file = _runs_parser("findings", findings), Path("configs/interpret/findings.yaml")
    parser.add_argument("--file", default=file, type=Path, help="the models and the tables")
    parser.add_argument(
        "--records", default="configs/records/findings.csv", type=Path, help="the records"
    )
    options = parser.parse_args(argv)
    from ad.runtime.files import read_marked
    from ad.sweeps.findings.plan import load_findings
    from ad.sweeps.findings.report import (
        list_findings,
        make_findings,
        missing_runs,
        write_findings,
    )
    from ad.sweeps.planned import shard

    _, words = take_launcher_options(argv)
    plan = load_findings(options.file, options.records)
    read_marked(plan.page, plan.tables)
    runs = shard(plan.planned_runs(), *shard_of(options.shard))
    if options.status == "true":
        return list_findings(plan, runs)
    if options.table == "false":
        if options.launcher == "none":
            make_findings(plan, runs, options.root, options.keep == "true")
        elif not _launch(runs, options, words, lambda: missing_runs(plan, runs)):
            return
    if options.runs == "false":
        write_findings(plan)


def leaderboard(argv: Sequence[str]) -> None:
    """Evaluate every method in every world of a board, and write the page of the leaderboard.

    A finished run is a line of configs/records/leaderboard.csv and is not made again; the same
    command resumes the others. If the intervals of a world's best methods overlap when all its runs
    are made, calling the command again makes further runs of them. `--small true` takes the small
    board. `--worlds` and `--methods` choose others than those of a board, and write a page of their
    own; chosen methods have no further runs.
    """
    parser = _sweep_parser("leaderboard", leaderboard)
    plan = Path("configs/leaderboard/leaderboard.yaml")
    parser.add_argument("--file", default=plan, type=Path, help="the worlds, methods and boards")
    parser.add_argument("--board", help="the name of a board; by default core")
    add_flag(parser, "small", "the same as --board small")
    parser.add_argument("--worlds", default="", help="titles with semicolons between")
    parser.add_argument("--methods", default="", help="titles with semicolons between")
    parser.add_argument(
        "--records", default="configs/records/leaderboard.csv", type=Path, help="the records"
    )
    options = parser.parse_args(argv)
    from ad.sweeps.leaderboard.further_runs import with_further_runs
    from ad.sweeps.leaderboard.plan import load_board
    from ad.sweeps.leaderboard.report import write_leaderboard
    from ad.sweeps.records import read_records

    if options.small == "true" and options.board not in (None, "small"):
        raise ConfigError(f"--small true is --board small, not --board {options.board}")
    name = "small" if options.small == "true" else options.board or "core"
    worlds, methods = (
        [title.strip() for title in text.split(";") if title.strip()]
        for text in (options.worlds, options.methods)
    )
    records = options.records
    plain = load_board(options.file, name, worlds, methods)
    if not any(cell.runs for cell in plain.cells):
        problems = (f"{cell.world} / {cell.method}: {cell.problem}" for cell in plain.cells)
        raise ConfigError("no cell can be made:\n  " + "\n  ".join(problems))
    page = "leaderboard_selection" if worlds or methods else f"leaderboard_{name}"
    page = page.removesuffix("_core")

    def board() -> "Board":  # the runs that were made may show that further ones are needed
        return plain if methods else with_further_runs(plain, read_records(records))

    def write_page() -> None:
        write_leaderboard(board(), records, records.parent, page)

    _sweep(records, board().planned_runs(), write_page, options, argv)


def sweep(argv: Sequence[str]) -> None:
    """Run the study, tables, leaderboard or findings of any file; the other options are theirs.

    With --status true and without --file, list the runs of every sweep in configs/.
    """
    parser = verb_parser("sweep", sweep)
    parser.add_argument(
        "--file", type=Path, help="a folder with study.yaml, or a YAML file of the others"
    )
    options, words = parser.parse_known_args(argv)
    if options.file is None and words != ["--status", "true"]:
        raise ConfigError("--file is missing: only --status true is for all sweeps")
    configs = Path("configs")
    committed = [path.parent for path in sorted(configs.glob("*/study.yaml"))]
    for pattern in ("records/*.yaml", "*/leaderboard.yaml", "*/findings.yaml"):
        committed += sorted(configs.glob(pattern))
    for file in [options.file] if options.file else committed:
        verb, option = _front_end(file)
        verb([option, str(file), *words])


def _front_end(file: Path) -> tuple[Callable, str]:
    """Return the verb that runs the sweep of `file`, and its option. Raises ConfigError."""
    if file.is_dir():
        return study, "--folder"
    from ad.config.parser import read_text
    from ad.config.yaml_io import YamlFile

    content = YamlFile(read_text(file)).data
    # Findings have tables too.
    for name, verb in {"models": findings, "tables": results, "boards": leaderboard}.items():
        if isinstance(content, dict) and name in content:
            return verb, "--file"
    raise ConfigError(f"{file} is no sweep: it has no models, tables or boards")


def table(argv: Sequence[str]) -> None:
    """Print the results of all runs under logs/ as a Markdown table, grouped by experiment.

    With --update, the table also replaces what is between the lines `<!-- results -->` and
    `<!-- /results -->` of a file.
    """
    parser = verb_parser("table", table)
    parser.add_argument("runs", nargs="*", help="names of runs; by default all")
    parser.add_argument("--root", type=Path, default=Path("."), help="the folder of logs/")
    parser.add_argument("--update", type=Path, help="a file with the two lines, e.g. README.md")
    parser.add_argument("--mark", default="results", help="the word in the two lines")
    options = parser.parse_args(argv)
    from ad.sweeps.results_table import print_table

    print_table(options.root, options.runs, options.update, options.mark)


def whole_numbers(option: str, text: str) -> list[int]:
    """Return the whole numbers in a text like "0,1,2". Raises ConfigError."""
    if not re.fullmatch(r"\d{1,9}(,\d{1,9})*", text):
        raise ConfigError(f"{option} must be whole numbers with commas between, not {text!r}")
    return [int(number) for number in text.split(",")]


def _runs_parser(
    name: str, verb: Callable, keeps_failures: bool = False
) -> argparse.ArgumentParser:
    """Return a parser with the options of a verb that makes many runs and a page of them."""
    parser, root = verb_parser(name, verb, SweepParser), Path("logs") / name
    parser.set_defaults(verb=name)
    parser.add_argument("--root", type=Path, default=root, help="where runs write their files")
    parser.add_argument("--shard", default="1/1", help="which part of the runs, e.g. 1/2 and 2/2")
    add_flag(parser, "keep", "keep the folders of finished runs")
    add_flag(parser, "status", "list the runs with their state, and stop")
    add_flag(parser, "table", "write the page and stop")
    add_flag(parser, "runs", "make the runs and stop")
    add_launcher_options(parser, keeps_failures)
    return parser


def _sweep_parser(name: str, verb: Callable) -> argparse.ArgumentParser:
    """Return a parser with the options of a verb whose runs have records, and failures."""
    parser = _runs_parser(name, verb, keeps_failures=True)
    parser.add_argument(
        "--merge", help="files of records made elsewhere, with commas between: add them and stop"
    )
    parser.add_argument(
        "--hparams", type=Path, help="write the records for TensorBoard into this folder and stop"
    )
    return parser


def _sweep(
    records: Path, runs: Sequence, write_page: Callable[[], None], options, argv: Sequence[str]
) -> None:
    """Make those of `runs` without a line in `records`, then the page, as the `options` say."""
    from ad.sweeps.planned import shard
    from ad.sweeps.records import merge_records
    from ad.sweeps.runs import list_runs, missing_trainings, run_missing

    _, words = take_launcher_options(argv, keeps_failures=True)
    if options.merge:
        return merge_records(records, [Path(name.strip()) for name in options.merge.split(",")])
    runs = shard(runs, *shard_of(options.shard))
    if options.hparams:
        from ad.sweeps.hparams import write_hparams

        return write_hparams(records, runs, options.hparams)
    if options.status == "true":
        return list_runs(records, runs, options.root)
    if options.table == "false":
        keep, retry = options.keep == "true", options.retry == "true"
        arguments = records, runs, options.root, keep, retry
        if options.launcher == "none":
            run_missing(*arguments)
        elif not _launch(runs, options, words, lambda: missing_trainings(*arguments)):
            return
    if options.runs == "false":
        write_page()


def _launch(runs: Sequence, options, words: Sequence[str], missing: Callable[[], Sequence]) -> bool:
    """Start jobs that share `runs`, unless none is `missing()`.

    Returns False if the jobs are only printed.
    """
    from ad.sweeps.launchers.launch import launch
    from ad.sweeps.planned import group_by_experiment, group_by_training

    if options.dry == "false" and not missing():
        return True
    most = len(group_by_experiment(group_by_training(runs)))  # which is what shards share
    return launch(options, options.verb, [*words, "--runs", "true"], options.root / "jobs", most)


def shard_of(text: str) -> tuple[int, int]:
    """Return the number of a shard and of all shards from a text like "1/2". Raises ConfigError."""
    match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)
    number, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= count:
        raise ConfigError(f"--shard must be 1/2, 2/2 or the like, not {text!r}")
    return number, count
