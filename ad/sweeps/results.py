"""The scores of a sweep's cells: estimates over runs, comparisons with baselines, and references.

Runs on one split are independent; of runs on several splits, the means of the splits are
(`ad.evaluation.scores`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

from ad.evaluation.scores import (
    SCORES,
    UNKNOWN,
    WORSE,
    Comparison,
    Deviation,
    Estimate,
    compare,
    estimate,
    known_of,
    number,
    pool,
    split_means,
)
from ad.registry import METHODS, SOURCES
from ad.reporting.tables import REFERENCE_TITLES
from ad.sweeps.plan import Cell, PlannedRun, Sweep, reads_histories
from ad.sweeps.records import Record, Records, read_records

Place = tuple[str, str]  # the titles of a group and a row
SHARE = "share_of_optimum_last10"
NORMALIZED = "normalized_return_last10"
OPTIMAL = "optimal policy"
REFERENCES = ("random", "tabular_learner", "restarted_learner", "explorer")
SOURCE_TITLES = {  # by the histories that the source agents made
    "learner": "the learner itself, on train tasks",
    "informed": "the informed source itself, on train tasks",
}
HISTORIES = ("learner", "none", "informed")
KNOWS = {"nothing": "nothing", "family": "the family of tasks", "optimum": "optimal actions"}
# The fewest runs of a row, or pairs, that are compared. The interval of two pairs has 12.7 standard
# errors on each side, and almost none where the two agree by chance.
LEAST_RUNS = 3
# Before version 0.3.0 the tabular learner had the settings of the source if that is the same
# algorithm. The source of these rows is the world's learner.
WITH_LEARNER = ("learner", "none")


@dataclass(frozen=True)
class SweepResults:
    """The records of each cell of a sweep that has any, in the order of its runs.

    Failures are left out; `failed` are the cells that have some. `entries` are records from
    outside, by group and title; they are in no comparison.
    """

    sweep: Sweep
    made: dict[Place, list[Record]]
    failed: frozenset[Place] = frozenset()
    entries: dict[Place, list[Record]] = field(default_factory=dict)

    def values(self, place: Place, score: str, world: str = "") -> list[float | None]:
        """Return a score of each run of a cell that was evaluated in `world`."""
        records = self.made.get(place, [])
        return [record.score(score, world) for record in records if world in record.values]

    def known(self, place: Place, score: str, world: str = "") -> list[float]:
        """Return the values of a score that are not None."""
        return [value for value in self.values(place, score, world) if value is not None]

    def estimate(self, place: Place, score: str, world: str = "") -> Estimate:
        """Return the estimate of a score over runs, or over splits where there are several.

        The score that is compared has the pooled standard deviation where the sweep pools it. Of
        paired runs, each has a split of its own, and one or two have a mean only.
        """
        values = self.values(place, score, world)
        known, own = self.known(place, score, world), SCORES[score]
        if self.sweep.config.paired:
            return estimate(known, low=own.low, high=own.high, least=LEAST_RUNS)
        if known and not world and self.deviation and score == self.sweep.config.score:
            mean = sum(known) / len(known)
            return self.deviation.estimate(mean, len(known), low=own.low, high=own.high)
        splits = [
            record.split_seed for record in self.made.get(place, []) if world in record.values
        ]
        return estimate(values, splits, own.low, own.high)

    def text(self, place: Place, score: str, world: str = "", interval: bool = True) -> str:
        """Return the estimate of a score as text, with the number of runs if only some have it."""
        own, form = self.estimate(place, score, world), SCORES[score].format
        text = own.text(form) if interval else number(own.mean, form)
        return text + known_of(self.values(place, score, world))

    @property
    def outside(self) -> "SweepResults":
        """The results of the entries alone."""
        return SweepResults(self.sweep, self.entries)

    @property
    def records(self) -> Records:
        """The records of all cells by key."""
        return {record.key: record for own in self.made.values() for record in own}

    @cached_property
    def settings(self) -> list[list[float]]:
        """The compared score of each distinct experiment, one number a run."""
        score, groups, distinct = self.sweep.config.score, self.sweep.groups, {}
        for place, own in self.made.items():
            key = groups[place[0]].world, *(record.key for record in own)
            distinct[key] = self.known(place, score)
        return list(distinct.values())

    @cached_property
    def deviation(self) -> Deviation | None:
        """The standard deviation over runs that all cells share, None unless the sweep pools."""
        return pool(self.settings) if self.sweep.config.pooled else None

    @cached_property
    def comparisons(self) -> dict[Place, Comparison]:
        """The comparison of each cell with the baseline of its group.

        With several splits, the differences of the split means are compared with 0, since the
        means of one split share its tasks. Where each run has a split, only the rows that say so
        are compared, each over all groups.
        """
        sweep, score = self.sweep, self.sweep.config.score
        if sweep.config.paired:
            return self._paired_comparisons()
        baselines = {place: (place[0], sweep.baseline(place[0])) for place in self.made}
        if len(sweep.config.splits) < 2:
            values = {place: self.known(place, score) for place in self.made}
            if sweep.config.pooled:
                return compare(values, baselines, self.settings)
            return compare(values, baselines, least=LEAST_RUNS)
        differences = {}
        for place, baseline in baselines.items():
            if place != baseline:
                differences[place] = self.differences(place, baseline)
        return compare(differences, None)

    def _paired_comparisons(self) -> dict[Place, Comparison]:
        """Return the comparisons of rows with `against`, corrected over the groups of each row."""
        compared: dict[Place, Comparison] = {}
        for row, entry in self.sweep.rows.items():
            differences = {}
            for group in self.sweep.groups if entry.against else ():
                places = (group, row), (group, entry.against)
                differences[group, row] = self.differences(*places)
            compared |= compare(differences, None, least=LEAST_RUNS)
        return compared

    @cached_property
    def below_learner(self) -> frozenset[Place]:
        """The cells that know nothing and have a lower compared score than the learner.

        The p values, of the differences on the splits of both, are corrected for all such cells.
        """
        learner = self.sweep.config.learner
        cells = (c for c in self.sweep.cells if learner and c.runs and c.row != learner)
        places = [(c.group, c.row) for c in cells if knows(c) == KNOWS["nothing"]]
        pairs = {place: self.differences(place, (place[0], learner)) for place in places}
        compared = compare(pairs, None, least=LEAST_RUNS)
        return frozenset(place for place, own in compared.items() if own.verdict == WORSE)

    def differences(self, place: Place, other: Place) -> list[float]:
        """Return the compared score of a cell minus that of another one, by splits of both."""
        own, base = self._split_means(place), self._split_means(other)
        return [own[split] - base[split] for split in own if split in base]

    def _split_means(self, place: Place) -> Mapping[int, float]:
        score = self.sweep.config.score
        records = [r for r in self.made.get(place, []) if r.score(score) is not None]
        return split_means(self.known(place, score), [record.split_seed for record in records])


def sweep_results(sweep: Sweep, records: Records) -> SweepResults:
    """Return the results of the sweep's cells by the `records`, failures left out."""
    made = {
        (cell.group, cell.row): [
            _seen_in(records[run.key], run, sweep.groups[cell.group].world)
            for run in cell.runs
            if run.key in records and not records[run.key].failure
        ]
        for cell in sweep.cells
    }
    made = {place: [record for record in own if record.values] for place, own in made.items()}
    failed = frozenset(
        (cell.group, cell.row)
        for cell in sweep.cells
        if any(run.key in records and records[run.key].failure for run in cell.runs)
    )
    entries: dict[Place, list[Record]] = {}
    for record in (read_records(sweep.entries) if sweep.entries else {}).values():
        if record.group in sweep.groups:
            entries.setdefault((record.group, entry_title(record)), []).append(record)
    return SweepResults(sweep, {p: own for p, own in made.items() if own}, failed, entries)


def _seen_in(record: Record, run: PlannedRun, world: str) -> Record:
    """Return the record with the values of `world` as its own, and no values without them."""
    if not world or not run.config.evaluation.worlds:
        return record
    own = record.values.get(world)
    return replace(record, values={"": own} if own else {})


def entry_title(record: Record) -> str:
    """Return the title of the row of an entry from outside."""
    return f"entry{', unverified code' if record.made_with['program'] else ''}: {record.row}"


def tuning_scores(results: SweepResults) -> dict[str, dict[str, float]]:
    """Return the NAUC of each row of a board that tunes, by method and title of the row.

    It is the mean over groups and their runs. A row of which a run failed is left out, and so is a
    method until its other rows have all runs.
    """
    failed = {row for _, row in results.failed}
    unfinished = {
        cell.row
        for cell in results.sweep.cells
        if len(results.made.get((cell.group, cell.row), [])) < len(cell.runs)
    }

    def score(row: str) -> float:
        known = [results.known((g, row), "nauc") for g in results.sweep.groups]
        means = [sum(own) / len(own) for own in known if own]
        return sum(means) / len(means) if means else math.nan

    scores = {
        method: {row: score(row) for row in rows if row not in failed}
        for method, rows in results.sweep.tried.items()
        if not (unfinished - failed) & set(rows)
    }
    whole = {method: own for method, own in scores.items() if own}
    return {m: own for m, own in whole.items() if not any(map(math.isnan, own.values()))}


def references(results: SweepResults, group: str) -> dict[str, dict[str, float]]:
    """Return the mean scores of each reference in a group, by title and by name of the score.

    A score that no record has is left out, and so is a reference without scores. The share of
    source agents is that of the last ten episodes of their histories.
    """
    config = results.sweep.config
    names = [*config.scores, *config.means]
    shares = [name for name in names if name in (SHARE, "nauc") or name.startswith("at_")]
    scores: dict[str, dict[str, float]] = {}
    if max(_of_first(results, group, lambda r: r.score("optimal_return")), default=0) > 0:
        scores[OPTIMAL] = dict.fromkeys([NORMALIZED, *shares], 1.0)
    for name in REFERENCES:
        histories = WITH_LEARNER if name == "tabular_learner" else HISTORIES
        if naucs := _of_first(results, group, partial(reference_nauc, name=name), histories):
            scores[REFERENCE_TITLES[name]] = {"nauc": sum(naucs) / len(naucs)}
    if random := scores.get(REFERENCE_TITLES["random"]):  # its return is that of every episode
        random |= dict.fromkeys(shares, random["nauc"]) | {NORMALIZED: 0.0}
    for histories, title in SOURCE_TITLES.items():
        if own := _of_first(results, group, lambda r: r.score("source_share"), (histories,)):
            scores[title] = {SHARE: sum(own) / len(own)}
    return scores


def reference_nauc(record: Record, name: str, world: str = "") -> float | None:
    """Return the NAUC of a reference in a record."""
    return record.values.get(world, {}).get("references", {}).get(name)


def knows(cell: Cell) -> str:
    """Return what a row knows besides observations and rewards, through its method or its source.

    It is nothing, the family of tasks, optimal actions, or both of these.
    """
    method, config = METHODS.load(cell.config.method.name), cell.config
    if method.has_model and not method.reads_histories:
        return KNOWS["nothing"]
    of_source = KNOWS.get(SOURCES.load(config.source.algorithm).privileged_info, UNKNOWN)
    if "optimal_action" not in method.fields:
        return of_source
    known = [KNOWS["optimum"], of_source]
    return ", ".join(dict.fromkeys(text for text in known if text != KNOWS["nothing"]))


def histories_of(cell: Cell) -> str:
    """Return whose histories a cell learns from: learner, a variant of its group, or none."""
    if not reads_histories(cell.config):
        return "none"
    return cell.variant or "learner"


def _of_first(
    results: SweepResults,
    group: str,
    read: Callable[[Record], float | None],
    histories: Sequence[str] = HISTORIES,
) -> list[float]:
    """Return what `read` returns of the runs of one row, the first row where it is known.

    Rows come in the order of `histories`, then of the sweep. One row is enough, since rows share
    the references of a group; and it is the same row for all runs, since rows differ in the train
    tasks that they are evaluated on.
    """
    cells = [cell for cell in results.sweep.cells_of(group) if cell.runs]
    own = {cell.row: histories_of(cell) for cell in cells}
    for row in sorted(
        (r for r in own if own[r] in histories), key=lambda r: histories.index(own[r])
    ):
        values = map(read, results.made.get((group, row), []))
        if known := [value for value in values if value is not None]:
            return known
    return []
