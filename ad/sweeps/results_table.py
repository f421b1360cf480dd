"""The table of all runs under logs/, grouped by experiment: runs that differ in seeds share a mean.

A run without results has a line that says so.
"""

from dataclasses import replace
from pathlib import Path

from ad.config.parser import load_file
from ad.config.schema import Experiment, config_hash
from ad.errors import ConfigError
from ad.reporting.tables import runs_table
from ad.runtime.console import info, warn
from ad.runtime.files import read_checked_json
from ad.runtime.run import world_folder, world_title


def print_table(root: Path, names: list[str]) -> None:
    """Print the table of the runs called `names`, or of all runs if `names` is empty.

    Raises ConfigError if a run is missing.
    """
    groups: dict[str, dict[str, dict | str]] = {}
    for folder in run_folders(root, names):
        try:
            config = load_file(folder / "config.yaml", root=str(root))
        except ConfigError as error:  # e.g. the file of its class is not there any more
            warn(f"{folder.name}: {error}")
            groups[folder.name] = {folder.name: "its settings cannot be read"}
            continue
        unseeded = {
            "split": replace(config.split, split_seed=0),
            "source": replace(config.source, source_seed=0),
            "training": replace(config.training, train_seed=0),
        }
        experiment = config_hash(replace(config, **unseeded))
        groups.setdefault(experiment, {})[folder.name] = results_of(folder, config)
        for kwargs in config.evaluation.worlds:
            title = f"{folder.name}, {world_title(kwargs)}"
            results = results_of(world_folder(folder, kwargs), config)
            groups.setdefault(f"{experiment} {world_title(kwargs)}", {})[title] = results
    info(runs_table(list(groups.values())).compact().markdown().rstrip())


def run_folders(root: Path, names: list[str]) -> list[Path]:
    """Return the folders of the runs called `names`, or of all runs in the order of their names."""
    folders = {path.parent.name: path.parent for path in (root / "logs").glob("*/config.yaml")}
    if missing := [name for name in names if name not in folders]:
        raise ConfigError(f"no run is called {', '.join(missing)} in {root / 'logs'}")
    if not folders:
        raise ConfigError(f"{root / 'logs'} holds no run: use `ad run` first")
    return [folders[name] for name in names or sorted(folders)]


def results_of(folder: Path, config: Experiment) -> dict | str:
    """Return the content of `results.json`, or a few words on why it cannot be used."""
    try:
        results = read_checked_json(folder / "results.json")
        if results["config_hash"] != config_hash(config):
            return "results of other settings"
        return results
    except FileNotFoundError:
        return "not evaluated"
    except (ValueError, KeyError, TypeError):
        return "results.json is damaged"
