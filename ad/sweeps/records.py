"""The records of many runs: a CSV file with a line for each finished run, to make tables from.

A record is found by the hash of its run's configuration, so that records of other settings are kept
but not counted. The hash does not notice changes of another experiment's file that the settings
name. A run that is also evaluated in other worlds has a record for each `world`. Scores are those
of `results.json`; `success_fifth_k` is the mean success in the k-th fifth of the in-context
episodes, `source_return` the mean return of the source agents' last ten episodes, `source_share`
its share of the optimal return, as the mean over the train tasks, `random_return` the mean return
of random actions, `held_out_accuracy` how often the most likely action of a model that imitates
single episodes is that of the actors which it was not trained on. `calibration_<action>` lists
"asked:achieved" returns, with a space between; `curve` lists "episode:share", the mean share of the
optimal return in each of CURVE_EPISODES, and `per_task` "task:share", that of the last ten episodes
of each held-out task. An empty cell is a score that does not exist, or that is newer than the
record.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ad.errors import ConfigError, CorruptError
from ad.evaluation.calibration import ACTIONS
from ad.evaluation.metrics import SEARCH_SCORES, json_number
from ad.evaluation.results import read_results
from ad.evaluation.summary import SUMMARY
from ad.methods import train_steps
from ad.runtime.console import info, warn
from ad.runtime.files import atomic_write, read_checked_json
from ad.runtime.locks import locked_files
from ad.runtime.metrics_log import last_value
from ad.runtime.run import Run, world_folder, world_title
from ad.sweeps.planned import PlannedRun

FIFTHS = tuple(f"success_fifth_{k}" for k in range(1, 6))
BOUNDED = (  # scores that have an interval over tasks
    "nauc",
    "success_last10",
    "return_last10",
    "share_of_optimum_last10",
    "normalized_return_last10",
    "path_ratio_last10",
    *SEARCH_SCORES,
    "success_seen",
)
SCORES = (*BOUNDED, "episodes_to_80pct", "tasks_solved", "num_tasks", "optimal_return")
ACCURACY = "train/held_out_actor_accuracy"  # its name in metrics.jsonl
CALIBRATIONS = {action: f"calibration_{action}" for action in ACTIONS}
CURVE_EPISODES = (1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200, 300, 500)
REFERENCES = (  # their NAUC is kept
    *("random", "random_then_optimal", "explorer", "ceiling"),
    "tabular_learner",
)
ADDED = ("tabular_learner_nauc", "random_return", "source_share")  # columns that older files lack
SECONDS = ("collect_s", "train_s", "evaluate_s")
HARDWARE = ("device", "threads", "precision", "python", "torch", "numpy")
TEXT = (
    *("key", "changed", "world", *CALIBRATIONS.values(), "curve", "per_task"),
    *HARDWARE,
    "resumed_with",
)
COLUMNS = (
    *("key", "changed", "world", "split_seed", "source_seed", "train_seed", "train_steps"),
    *SCORES,
    *FIFTHS,
    *("train_nauc", "train_success_last10", "source_return", "held_out_accuracy"),
    *CALIBRATIONS.values(),
    *("curve", "per_task"),
    *(f"{name}_nauc" for name in REFERENCES),
    "random_return",
    "source_share",
    *(f"{name}_{end}" for name in BOUNDED for end in ("low", "high")),
    *SECONDS,
    *HARDWARE,
    "resumed_with",
)
RunRecord = dict[str, str | float | None]


def read_records(path: Path) -> dict[str, RunRecord]:
    """Return the records at `path` by key, none without a file. Raises CorruptError.

    The cells of the columns ADDED are empty where the file has no such columns.
    """
    if not path.exists():
        return {}
    try:
        with open(path, newline="", encoding="utf-8") as file:
            header, *lines = list(csv.reader(file)) or [[]]
        if header != [name for name in COLUMNS if name in header or name not in ADDED]:
            raise ValueError("its columns are others")
        older = dict.fromkeys(ADDED, "")
        cells = [older | dict(zip(header, line, strict=True)) for line in lines]
        records = [{name: _parse(name, cell) for name, cell in line.items()} for line in cells]
    except (ValueError, csv.Error) as error:
        raise CorruptError(f"{path} is not a whole file of records: {error}") from error
    return {record["key"]: record for record in records}


def add_records(path: Path, new: Sequence[RunRecord]) -> None:
    """Add the records `new` to those at `path`, in place of earlier ones of the same runs."""
    records = list((read_records(path) | {record["key"]: record for record in new}).values())
    order = ("changed", "split_seed", "train_seed", "world", "key")
    records.sort(key=lambda record: tuple(record[name] for name in order))
    with atomic_write(path) as copy, open(copy, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for record in records:
            writer.writerow([_text(record[name]) for name in COLUMNS])


def merge_records(path: Path, others: Sequence[Path]) -> None:
    """Add the records of the files `others` to those at `path`.

    A record is that of the same run if the hash of its configuration is the same. Then the one at
    `path` stays, with a warning if the other has other scores or was made with other versions or
    hardware. Raises ConfigError for a file that does not exist, CorruptError for a damaged one.
    """
    if absent := [str(other) for other in others if not other.exists()]:
        raise ConfigError(f"--merge: there is no file {', '.join(absent)}")
    with locked_files(path.parent):
        records = read_records(path)
        for other in others:
            found = read_records(other)
            for key in found.keys() & records.keys():
                if changed := _differences(records[key], found[key]):
                    warn(
                        f"{other}: {found[key]['changed']}, seed {found[key]['train_seed']:.0f}: "
                        f"{', '.join(changed)}; the record of {path} stays"
                    )
            new = {key: record for key, record in found.items() if key not in records}
            records |= new
            info(f"{other}: {len(new)} of {len(found)} records are new")
        add_records(path, list(records.values()))


def _differences(record: RunRecord, other: RunRecord) -> list[str]:
    """Return in what two records of a run differ, apart from times: versions first, then scores."""
    names = [name for name in COLUMNS if name not in (*SECONDS, "resumed_with")]
    names = [name for name in names if name not in ADDED or None not in (record[name], other[name])]
    differ = [name for name in names if record[name] != other[name]]
    if made := [name for name in differ if name in HARDWARE]:
        return [f"{name} {other[name]} in place of {record[name]}" for name in made]
    return ["other scores of the same versions"] if differ else []


def world_key(key: str, world: str) -> str:
    """Return the key of the record of a run in one of its `worlds`; its own world is ""."""
    return f"{key}-{world.replace(' ', '-')}" if world else key


def records_of(planned: PlannedRun, run: Run) -> list[RunRecord]:
    """Return the records of an evaluated run: of its own world, then of `evaluation.worlds`."""
    own = read_checked_json(run.folder / SUMMARY)
    evaluated = [("", run.folder, own)]
    for kwargs in run.config.evaluation.worlds:
        folder = world_folder(run.folder, kwargs)
        evaluated.append((world_title(kwargs), folder, read_checked_json(folder / SUMMARY)))
    config = planned.config
    about = {
        "changed": planned.changed,
        "split_seed": config.split.split_seed,
        "source_seed": config.source.source_seed,
        "train_seed": config.training.train_seed,
        "train_steps": train_steps(config),
        "held_out_accuracy": last_value(run.folder, ACCURACY),
        **{name: own["timing"].get(name) for name in SECONDS},
        **{name: own["evaluated_on"][name] for name in HARDWARE},
        "resumed_with": "; ".join(own["resumed_with"]),
    }
    return [
        {"key": world_key(planned.key, world), "world": world} | about | _scores(folder, results)
        for world, folder, results in evaluated
    ]


def _scores(folder: Path, results: dict) -> RunRecord:
    """Return the scores of a `results.json`, whose `results.csv` is in `folder`."""
    held_out, train = (results["splits"][split] for split in ("held_out", "train"))
    evaluation = read_results(folder / "results.csv")["held_out"]
    parts = np.array_split(evaluation.successes, 5, axis=2)  # of [K, S, E]
    fifths = [json_number(part.mean()) if part.size else None for part in parts]
    references = {name: results["references"].get(name, {}) for name in REFERENCES}
    source = results["references"].get("source_end", {}).get("train", {})
    bounds = {name: held_out["ci95"].get(name) or (None, None) for name in BOUNDED}
    return {
        **{name: held_out[name] for name in SCORES},
        **dict(zip(FIFTHS, fifths, strict=True)),
        "train_nauc": train["nauc"],
        "train_success_last10": train["success_last10"],
        "source_return": source.get("return_last10"),
        "source_share": source.get("share_of_optimum_last10"),
        **{column: _calibration(results, action) for action, column in CALIBRATIONS.items()},
        "curve": _curve(evaluation.returns, held_out["per_task"]),
        "per_task": _per_task(held_out["per_task"]),
        **{f"{name}_nauc": r.get("held_out", {}).get("nauc") for name, r in references.items()},
        "random_return": references["random"].get("held_out", {}).get("return_last10"),
        **{f"{name}_low": low for name, (low, _) in bounds.items()},
        **{f"{name}_high": high for name, (_, high) in bounds.items()},
    }


def read_calibration(record: RunRecord, action: str) -> dict[float, float]:
    """Return the achieved return for each asked one of a record, {} if there was none."""
    return {float(asked): share for asked, share in _pairs(record[CALIBRATIONS[action]])}


def read_curve(record: RunRecord) -> dict[int, float]:
    """Return the share of the optimal return by episode of a record, {} if it is unknown."""
    return {int(episode): share for episode, share in _pairs(record["curve"])}


def read_per_task(record: RunRecord) -> dict[str, float]:
    """Return the share of the optimal return by held-out task, {} if it is unknown."""
    return dict(_pairs(record["per_task"]))


def _pairs(text: str) -> list[tuple[str, float]]:
    """Return the pairs of a text like "1:0.5 2:0.75"."""
    pairs = (pair.rsplit(":", 1) for pair in text.split())
    return [(name, float(value)) for name, value in pairs]


def _curve(returns: np.ndarray, per_task: Sequence[dict]) -> str:
    """Return the column `curve` for returns [K, S, E], "" unless all optima are above 0."""
    optimal = [task["optimal_return"] for task in per_task]
    if not all(optimum is not None and optimum > 0 for optimum in optimal):
        return ""
    shares = (returns.mean(1) / np.array(optimal)[:, None]).mean(0)  # [E]
    kept = [episode for episode in CURVE_EPISODES if episode <= len(shares)]
    return " ".join(f"{episode}:{shares[episode - 1]:.4g}" for episode in kept)


def _per_task(per_task: Sequence[dict]) -> str:
    shares = [(task["task"], task["share_of_optimum_last10"]) for task in per_task]
    known = [(name, share) for name, share in shares if share is not None]
    return " ".join(f"{name}:{share:.3g}" for name, share in known)


def _calibration(results: dict, action: str) -> str:
    entries = results.get("calibration_by_action", {}).get(action, ())
    return " ".join(f"{entry['asked']!r}:{entry['achieved']:.6g}" for entry in entries)


def _text(value: str | float | None) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return str(int(value)) if value == int(value) else f"{value:.6g}"


def _parse(name: str, cell: str) -> str | float | None:
    if name in TEXT:
        return cell
    return float(cell) if cell else None
