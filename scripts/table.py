"""The table of results: every run under logs/, grouped by configuration, seeds apart.

    python -m scripts.table [--root .] [--update README.md] [--mark results] [run ...]

A run without results is marked as such: left out, it would not be missed. Prints Markdown; with
`--update FILE` it takes the place of what stands between the lines `<!-- results -->` and
`<!-- /results -->` of FILE, or of another mark.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from ad.config.parser import load
from ad.config.schema import Experiment, config_hash
from ad.errors import ConfigError
from ad.reporting.tables import runs_table
from ad.runtime import signals as interruption
from ad.runtime.console import info, open_streams
from ad.runtime.files import replace_between
from ad.runtime.run import world_folder, world_title
from scripts.cli import guarded


def main(root: Path, names: list[str], update: Path | None, mark: str = "results") -> None:
    """Print the table of the runs `names` (all, without names); put it into `update` at `mark`."""
    groups: dict[str, dict[str, dict | str]] = {}
    for folder in run_folders(root, names):
        config = load(["--config_path", str(folder / "config.yaml"), "--root", str(root)]).config
        alike = _without_seeds(config)
        groups.setdefault(alike, {})[folder.name] = results_of(folder, config)
        for kwargs in config.evaluation.worlds:
            title = f"{folder.name}, {world_title(kwargs)}"
            results = results_of(world_folder(folder, kwargs), config)
            groups.setdefault(f"{alike} {world_title(kwargs)}", {})[title] = results
    text = runs_table(list(groups.values())).compact().markdown()
    info(text.rstrip())
    if update is not None:
        replace_between(update, mark, text)


def run_folders(root: Path, names: list[str]) -> list[Path]:
    """The folders of the runs called `names` (all, without names), by name."""
    found = {path.parent.name: path.parent for path in (root / "logs").glob("*/config.yaml")}
    if missing := [name for name in names if name not in found]:
        raise ConfigError(f"no run is called {', '.join(missing)} in {root / 'logs'}")
    if not found:
        raise ConfigError(f"{root / 'logs'} holds no run: use scripts.run first")
    return [found[name] for name in names or sorted(found)]


def results_of(folder: Path, config: Experiment) -> dict | str:
    """The content of `results.json`, or what is the matter with it in a few words."""
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        if results["config_hash"] != config_hash(config):
            return "results of other settings"
        return results
    except FileNotFoundError:
        return "not evaluated"
    except (ValueError, KeyError, TypeError):
        return "results.json is damaged"


def _without_seeds(config: Experiment) -> str:
    return config_hash(
        replace(
            config,
            split=replace(config.split, split_seed=0),
            source=replace(config.source, source_seed=0),
            training=replace(config.training, train_seed=0),
        )
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", help="names of runs; all without any")
    parser.add_argument("--root", type=Path, default=Path("."))
    parser.add_argument("--update", type=Path, help="a file with the two marks, e.g. README.md")
    parser.add_argument("--mark", default="results", help="what the two marks are called")
    words = parser.parse_args()
    open_streams()
    interruption.install()
    sys.exit(guarded(lambda: main(words.root, words.runs, words.update, words.mark)))
