"""Time every stage beside its peers: python -m scripts.benchmark [--only PART] [--quick]

Prints one table and writes logs/benchmark/results.json (every repeat, versions, threads), the plot
growth.png and a profile of a training step. Six to ten minutes on two cores; --quick in one. The
peers come with the extra `bench`. With --update FILE the table takes the place of what stands
between the lines `<!-- speed -->` and `<!-- /speed -->` of FILE, and logs/growth.png is renewed.
With --only the rows of the other parts stay those of the last run on this machine.
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
    "backends": "backends",
    "end_to_end": "end_to_end",
}
FOLDER = Path("logs/benchmark")


def main(parts: list[str], quick: bool, root: Path, update: Path | None = None) -> None:
    """Measure the rows of the `parts`, show them, and write what was seen."""
    from ad.runtime.files import replace_between, write_json
    from scripts.benchmark import show
    from scripts.benchmark.measure import FULL, QUICK, progress

    effort = QUICK if quick else FULL
    begin, rows = time.perf_counter(), []
    for part in parts:
        module = importlib.import_module(f"scripts.benchmark.{PARTS[part]}")
        steps = [(row.__name__.replace("_", " "), row) for row in module.ROWS]
        rows += [made for _, row in progress(steps, part) if (made := row(effort)) is not None]
        if hasattr(module, "write_profile") and not quick:
            folder = root / FOLDER
            folder.mkdir(parents=True, exist_ok=True)
            module.write_profile(folder)
    seconds = time.perf_counter() - begin
    rows = show.with_others(rows, root / FOLDER / "results.json", quick, list(PARTS))
    info(show.table(rows).markdown())
    for line in show.lines(rows):
        info(line)
    content = {"machine": show.machine(), "quick": quick, "seconds": round(seconds, 1)}
    content["rows"] = [row.as_dict() for row in rows]
    write_json(root / FOLDER / "results.json", content)
    show.write_plot(root / FOLDER / "growth.png", rows)
    if update is not None:
        replace_between(update, "speed", show.table(rows).markdown())
        show.write_plot(root / "logs/growth.png", rows)
    info(f"benchmark: {len(rows)} rows in {seconds:.0f} s, {root / FOLDER / 'results.json'}")


def benchmark(words: Sequence[str]) -> None:
    """Parse the command line's words and measure."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.benchmark", description="How fast, against what, how near the limit"
    )
    parser.add_argument("--only", choices=tuple(PARTS), help="one part; without it all")
    parser.add_argument("--quick", action="store_true", help="in a minute, fewer repeats")
    parser.add_argument("--root", type=Path, default=Path("."), help="the folder of logs/")
    parser.add_argument("--update", type=Path, help="a file with the two marks, e.g. README.md")
    options = parser.parse_args(words)
    chosen = [options.only] if options.only else list(PARTS)
    main(chosen, options.quick, options.root, options.update)


if __name__ == "__main__":
    run_and_exit(benchmark)
