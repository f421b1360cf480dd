"""Time every stage beside its peers: python -m scripts.benchmark [--only PART] [--quick]

Prints a table and writes it, with every repeat, the versions and the number of threads, to
logs/benchmark/results.json, beside the plot growth.png. Takes up to twenty minutes on two cores, up
to ten with --quick. The peers come with the extra `bench`. With --update FILE the table replaces
the text between the lines `<!-- speed -->` and `<!-- /speed -->` of FILE, and logs/growth.png is
drawn anew. With --only the measurements of the other parts stay those of the last benchmark on this
machine.
"""

import argparse
import importlib
import time
from collections.abc import Sequence
from pathlib import Path

from ad.cli import run_and_exit
from ad.runtime.console import info

PARTS = {
    "collect": "collection",
    "train": "training",
    "rollout": "rollouts",
    "end_to_end": "end_to_end",
}
FOLDER = Path("logs/benchmark")
MARK = "speed"  # of the table that --update writes


def main(parts: list[str], quick: bool, root: Path, update: Path | None = None) -> None:
    """Run the benchmarks of `parts`, show their measurements and write them below `root`."""
    from ad.runtime.files import read_marked, replace_between, write_json
    from scripts.benchmark import show
    from scripts.benchmark.measure import FULL, QUICK, progress

    if update is not None:
        read_marked(update, [MARK])  # its error comes before the measurements
    effort = QUICK if quick else FULL
    begin, measurements = time.perf_counter(), []
    for part in parts:
        module = importlib.import_module(f"scripts.benchmark.{PARTS[part]}")
        for benchmark in progress(module.BENCHMARKS, part):
            if (measurement := benchmark(effort)) is not None:
                measurements.append(measurement)
    seconds = time.perf_counter() - begin
    results = root / FOLDER / "results.json"
    measurements = show.with_other_parts(measurements, results, quick, list(PARTS))
    table = show.table(measurements).markdown()
    info(table)
    for line in show.detail_lines(measurements):
        info(line)
    content = {"system": show.system_info(), "quick": quick, "seconds": round(seconds, 1)}
    content["measurements"] = [measurement.as_dict() for measurement in measurements]
    write_json(results, content)
    show.write_plot(root / FOLDER / "growth.png", measurements)
    if update is not None:
        replace_between(update, {MARK: table})
        show.write_plot(root / "logs/growth.png", measurements)
    info(f"benchmark: {len(measurements)} measurements in {seconds:.0f} s, {results}")


def benchmark(argv: Sequence[str]) -> None:
    """Run the benchmark that the command line `argv` asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.benchmark",
        description="Time every stage against its peers and against the limit of the hardware.",
    )
    parser.add_argument("--only", choices=tuple(PARTS), help="the part to run (default: all)")
    parser.add_argument("--quick", action="store_true", help="fewer repeats, up to ten minutes")
    parser.add_argument("--root", type=Path, default=Path("."), help="the folder of logs/")
    parser.add_argument(
        "--update",
        type=Path,
        metavar="FILE",
        help="write the table into this file, e.g. scripts/benchmark/README.md, between the lines "
        "<!-- speed --> and <!-- /speed -->",
    )
    options = parser.parse_args(argv)
    parts = [options.only] if options.only else list(PARTS)
    main(parts, options.quick, options.root, options.update)


if __name__ == "__main__":
    run_and_exit(benchmark)
