"""The records of a sweep: a JSON line for each run, failures among them.

A record belongs to a run by the hash of the run's settings (`PlannedRun.key`), so that records of
other settings are kept but not counted. The hash does not notice changes of a file that the
settings name. `values` are what the measure of the sweep says about the run
(`ad.sweeps.measures`); a run that failed has the sentence of its error in `failure` and no values.
`made_with` holds the version of this suite, of Python and of the libraries, and the hardware.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ad.errors import ConfigError, CorruptError
from ad.runtime.console import info, warn
from ad.runtime.files import write_text
from ad.runtime.locks import locked_files
from ad.sweeps.plan import PlannedRun

VERSIONS = ("torch", "numpy")  # libraries whose versions change results


@dataclass(frozen=True)
class Record:
    """The result of one run. seconds: the time of each verb, by name."""

    key: str
    group: str
    row: str
    split_seed: int
    source_seed: int
    train_seed: int
    values: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float | None] = field(default_factory=dict)
    made_with: dict[str, Any] = field(default_factory=dict)
    failure: str = ""

    def score(self, name: str, world: str = "") -> float | None:
        """Return a score on the held-out tasks of `world`, "" for the run's own world.

        `at_<n>` is the share of the optimal return in episode n, `train_s` the seconds of training.
        """
        if name.endswith("_s"):
            return self.seconds.get(name)
        values = self.values.get(world, {})
        if name.startswith("at_"):
            return values.get("curve", {}).get(name.removeprefix("at_"))
        return values.get("scores", {}).get(name)


Records = dict[str, Record]  # by key


def new_record(run: PlannedRun, **entries: Any) -> Record:
    """Return the record of `run` with further `entries`; numbers have six significant digits."""
    config = run.config
    seeds = config.split.split_seed, config.source.source_seed, config.training.train_seed
    return Record(run.key, run.group, run.row, *seeds, **_rounded(entries))


def read_records(path: Path) -> Records:
    """Return the records at `path`, {} without a file. Raises CorruptError."""
    if not path.exists():
        return {}
    names = {entry.name for entry in fields(Record)}
    records = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            content = json.loads(line)
            if content.keys() != names:
                raise ValueError(f"its entries are not {', '.join(sorted(names))}")
            record = Record(**content)
        except (ValueError, TypeError, AttributeError) as error:
            raise CorruptError(f"{path}, line {number} is not a record: {error}") from error
        records[record.key] = record
    return records


def add_records(path: Path, new: Iterable[Record]) -> None:
    """Add `new` records to those at `path`, in place of earlier ones of the same runs.

    The values of worlds that the new record lacks stay, and so does a record whose run failed anew.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked_files(path.parent):
        records = read_records(path)
        for record in new:
            old = records.get(record.key)
            if old is None or not (record.failure and old.values):
                if old and old.values.keys() - record.values.keys():
                    if text := _difference(old, record):
                        warn(f"{path}: {record.group} / {record.row} keeps other worlds: {text}")
                    record = replace(record, values=old.values | record.values)
                records[record.key] = record
        _write(path, records)


def forget_failures(path: Path, keys: Collection[str]) -> None:
    """Remove the records of failed runs with these `keys`, so that they are made again."""
    with locked_files(path.parent):
        records = read_records(path)
        kept = {k: record for k, record in records.items() if k not in keys or not record.failure}
        if len(kept) < len(records):
            _write(path, kept)


def merge_records(path: Path, others: Sequence[Path]) -> None:
    """Add the records of the files `others` to those at `path`.

    A record is of the same run if its key is the same. Then the one at `path` stays, unless it is a
    failure, and gets the values of further worlds, with a warning if the other has other values or
    was made with other versions. Raises ConfigError for a file that does not exist, CorruptError
    for a damaged one.
    """
    if absent := [str(other) for other in others if not other.exists()]:
        raise ConfigError(f"--merge: there is no file {', '.join(absent)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked_files(path.parent):
        records = read_records(path)
        for other in others:
            theirs = read_records(other)
            both = {key for key in theirs if key in records and not records[key].failure}
            for key in both:
                if not theirs[key].failure and (text := _difference(records[key], theirs[key])):
                    name = f"{theirs[key].group} / {theirs[key].row}, seed {theirs[key].train_seed}"
                    warn(f"{other}: {name}: {text}; the record of {path} stays")
                values = theirs[key].values | records[key].values
                theirs[key] = replace(records[key], values=values)
            records |= theirs
            info(f"{other}: {len(theirs) - len(both)} of {len(theirs)} records are new")
        _write(path, records)


def _difference(record: Record, other: Record) -> str:
    """Return in what two records of one run differ, apart from times, "" if in nothing."""
    names = dict.fromkeys([*record.made_with, *other.made_with])
    differ = [
        f"{name} {other.made_with.get(name)} in place of {record.made_with.get(name)}"
        for name in names
        if record.made_with.get(name) != other.made_with.get(name)
    ]
    worlds = record.values.keys() & other.values.keys()
    if not differ and any(record.values[world] != other.values[world] for world in worlds):
        return "other values of the same versions"
    return ", ".join(differ)


def _write(path: Path, records: Records) -> None:
    """Write the records in the order of their titles and seeds."""

    def order(record: Record) -> tuple:
        seeds = record.split_seed, record.train_seed, record.source_seed
        return record.group, record.row, *seeds, record.key

    lines = (
        json.dumps(asdict(record), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        for record in sorted(records.values(), key=order)
    )
    write_text(path, "".join(f"{line}\n" for line in lines))


def _rounded(value: Any) -> Any:
    """Return plain data with six significant digits of each number."""
    if isinstance(value, dict):
        return {str(name): _rounded(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
