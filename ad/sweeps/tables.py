"""The tables and charts of a sweep whose measure is the evaluation."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ad.evaluation.aggregates import (
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
)
from ad.evaluation.calibration import ACTIONS
from ad.evaluation.scores import (
    BETTER,
    CURVE_EPISODES,
    NOT_SIGNIFICANT,
    SCORES,
    UNKNOWN,
    WORSE,
    Comparison,
    estimate,
    number,
    pool,
)
from ad.methods import build_method
from ad.reporting.page import Chart, Choice, Table
from ad.reporting.tables import REFERENCE_TITLES
from ad.runtime.run import world_title
from ad.sweeps.plan import Cell, reads_histories, settings_text
from ad.sweeps.results import (
    LEAST_RUNS,
    Place,
    SweepResults,
    histories_of,
    knows,
    reference_nauc,
    references,
    tuning_scores,
)

SHOWN_REFERENCES = ("random_then_optimal", "explorer")
REFERENCES_HEADING = "NAUC of random walk, best known policy"
BELOW_LEARNER = " †"  # behind an NAUC that is below that of the learner
NOT_VERIFIED = "not verified"  # what the maker of an entry knew
FIFTHS = tuple(f"success_fifth_{k}" for k in range(1, 6))
VERDICTS = (BETTER, WORSE, NOT_SIGNIFICANT)
THRESHOLDS = np.linspace(0, 1, 51)


def group_table(results: SweepResults, group: str, folder: Path) -> Table:
    """Return a line for each row of `group` and each world of its evaluation, then references.

    Links to the files of experiments are relative to `folder`.
    """
    sweep, config = results.sweep, results.sweep.config
    own = sweep.groups[group]
    if sweep.is_calibration(group):
        return _calibration_table(results, group, folder)
    scores, means = own.scores or config.scores, [] if own.scores else config.means
    reference_scores = references(results, group) if sweep.rows else {}
    baseline, rows = sweep.baseline(group), []
    for cell in sweep.cells_of(group):
        place = group, cell.row
        for world in _worlds(results, cell):
            cells = [results.text(place, name, world) for name in scores]
            cells += [results.text(place, name, world, interval=False) for name in means]
            if not world and place in results.below_learner and "nauc" in scores:
                cells[scores.index("nauc")] += BELOW_LEARNER
            compared = None if world else results.comparisons.get(place)
            against = compared.text() if compared else UNKNOWN
            if compared and config.paired:
                other = sweep.rows[cell.row].against
                pairs = results.differences(place, (group, other))
                above = sum(own > 0 for own in pairs)
                against = f"{other}: {against}, above in {above} of {len(pairs)}"
            rows.append(
                {
                    "title": _title(results, cell, folder) + (f", {world}" if world else ""),
                    "knows": knows(cell),
                    "scores": cells,
                    "references": _references_text(results, place, world),
                    "against": against,
                    "transitions": _transitions(cell),
                    "runs": _runs(results, cell),
                }
            )
    for place, records in results.entries.items():
        if place[0] == group:
            cells = [results.outside.text(place, name) for name in scores]
            cells += [results.outside.text(place, name, interval=False) for name in means]
            own_row = {"title": place[1], "knows": NOT_VERIFIED, "scores": cells}
            rows.append(own_row | {"runs": str(len(records))})
    for title, own_scores in reference_scores.items():
        texts = [number(own_scores.get(name), SCORES[name].format) for name in [*scores, *means]]
        if {*texts} != {UNKNOWN}:
            rows.append({"title": f"*{title}*", "scores": texts})
    heading, against = SCORES[config.score].heading, ""
    if config.paired:
        against = f"difference of {heading} from that of"
    elif baseline:
        against = f"{heading} minus that of {baseline}"
    columns = {
        "title": (own.grid and next(iter(own.grid))) or config.heading,
        "knows": "knows",
        "scores": [SCORES[name].heading for name in [*scores, *means]],
        "references": REFERENCES_HEADING,
        "against": against,
        "transitions": "source transitions",
        "runs": "runs",
    }
    optional = {"knows", "references", "transitions"} - set(config.facts)
    columns = {n: c for n, c in columns.items() if n not in optional and (n != "against" or c)}
    return Table(_flat(columns, columns), [_flat(columns, row) for row in rows]).compact()


def _flat(columns: dict, row: dict) -> list[str]:
    """Return the cells of `row` in the order of the columns, a dash where it has none."""
    cells = []
    for name in columns:
        cells += row["scores"] if name == "scores" else [row.get(name, UNKNOWN)]
    return cells


def _calibration_table(results: SweepResults, group: str, folder: Path) -> Table:
    """Return a row for each row of `group` with records and each way to act.

    Its columns are the source's return and the returns achieved for the asked ones.
    """
    cells = [c for c in results.sweep.cells_of(group) if (group, c.row) in results.made]
    asked = sorted({value for cell in cells for value in cell.config.evaluation.calibration})
    rows = []
    for cell in cells:
        records = results.made[group, cell.row]
        for action, title in ACTIONS.items():
            curves = [record.values[""]["calibration"][action] for record in records]
            curves = [{float(text): value for text, value in curve.items()} for curve in curves]
            splits = [record.split_seed for record in records]
            achieved = [
                estimate([curve.get(value) for curve in curves], splits).text(".3f")
                for value in asked
            ]
            source = results.text((group, cell.row), "source_return")
            link = _title(results, cell, folder)
            rows.append([link, title, source, *achieved, _runs(results, cell)])
    headings = [f"asked {value:g}" for value in asked]
    heading = results.sweep.config.heading
    return Table([heading, "actions", SCORES["source_return"].heading, *headings, "runs"], rows)


def overview_table(results: SweepResults) -> Table:
    """Return a row for each group: its baseline, and the verdicts on its other rows."""
    sweep, rows = results.sweep, []
    for group in sweep.groups:
        own = {place[1]: c for place, c in results.comparisons.items() if place[0] == group}
        baseline = sweep.baseline(group)
        text = f"{baseline}: {results.text((group, baseline), sweep.config.score)}"
        rows.append([group, text, *(names or UNKNOWN for names in _by_verdict(own))])
    return Table(["question", "compared with", *VERDICTS], rows, text_columns=(0, 1, 2, 3, 4))


def summary_table(results: SweepResults) -> Table:
    """Return a row for each row, with its score in each group, then the references."""
    sweep, score = results.sweep, results.sweep.config.score
    barred = {(cell.group, cell.row) for cell in sweep.cells if cell.problem}
    rows = []
    for row in sweep.rows:
        texts = [
            "not applicable" if (group, row) in barred else results.text((group, row), score)
            for group in sweep.groups
        ]
        cell = next((c for c in sweep.cells if c.row == row and c.runs), None)
        kind = [UNKNOWN] * 2 if cell is None else [knows(cell), histories_of(cell)]
        rows.append([row, *kind, *texts])
    for row in dict.fromkeys(row for _, row in results.entries):
        texts = [results.outside.text((group, row), score) for group in sweep.groups]
        rows.append([row, NOT_VERIFIED, UNKNOWN, *texts])
    found = [references(results, group) for group in sweep.groups]
    for title in dict.fromkeys(title for own in found for title in own):
        values = [own.get(title, {}).get(score) for own in found]
        if any(value is not None for value in values):
            texts = [number(value, SCORES[score].format) for value in values]
            rows.append([f"*{title}*", *[UNKNOWN] * 2, *texts])
    titles = [group or SCORES[score].heading for group in sweep.groups]
    return Table([sweep.config.heading, "knows", "histories of", *titles], rows)


def short_table(results: SweepResults) -> Table:
    """Return a row for each row with records: what it knows, its score in each group in per cent.

    A bracket has the number of runs if some are missing. Random actions are below these rows.
    """
    sweep, score = results.sweep, results.sweep.config.score
    runs = max((len(cell.runs) for cell in sweep.cells), default=0)

    def text(cell: Cell) -> str:
        known = results.known((cell.group, cell.row), score)
        if not known:
            return "n/a" if cell.problem else UNKNOWN
        mean = f"{100 * (results.estimate((cell.group, cell.row), score).mean or 0):.1f}"
        return mean if len(known) == runs else f"{mean} ({len(known)})"

    rows = []
    for row in sweep.rows:
        cells = [cell for cell in sweep.cells if cell.row == row]
        if any((cell.group, row) in results.made for cell in cells):
            rows.append([row, _known_to(sweep, row), *map(text, cells)])
    title = REFERENCE_TITLES["random"]
    values = [references(results, group).get(title, {}).get(score) for group in sweep.groups]
    if any(value is not None for value in values):
        texts = [UNKNOWN if value is None else f"{100 * value:.1f}" for value in values]
        rows.append([f"*{title}*", UNKNOWN, *texts])
    for row in dict.fromkeys(row for _, row in results.entries):
        own = (results.outside.known((group, row), score) for group in sweep.groups)
        texts = [f"{100 * np.mean(values):.1f} ({len(values)})" if values else "" for values in own]
        rows.append([row, NOT_VERIFIED, *(text or UNKNOWN for text in texts)])
    return Table([sweep.config.heading, "knows", *sweep.groups], rows)


def _known_to(sweep, row: str) -> str:
    """Return what a row knows, of all its groups."""
    own = (knows(cell) for cell in sweep.cells if cell.row == row and cell.runs)
    return ", ".join(dict.fromkeys(own))


def complete_scores(results: SweepResults) -> dict[str, np.ndarray]:
    """Return the compared score [R, W] of each row with all runs.

    W are the groups in which the baseline has its runs; a row that lacks one there is left out. R
    is the smallest number of runs of a cell of the row. A row of fewer than LEAST_RUNS is left out.
    """
    sweep, scores, groups = results.sweep, _whole_cells(results), complete_groups(results)
    rows = [row for row in sweep.rows if groups and all((g, row) in scores for g in groups)]
    runs = {row: min(len(scores[g, row]) for g in groups) for row in rows}
    if runs.get(sweep.config.baseline, 0) < LEAST_RUNS:
        return {}
    return {
        row: np.array([scores[g, row][: runs[row]] for g in groups]).T
        for row in rows
        if runs[row] >= LEAST_RUNS
    }


def complete_groups(results: SweepResults) -> list[str]:
    """Return the groups in which the baseline has all its runs."""
    baseline, whole = results.sweep.config.baseline, _whole_cells(results)
    return [group for group in results.sweep.groups if (group, baseline) in whole]


def _whole_cells(results: SweepResults) -> dict[tuple[str, str], list[float]]:
    """Return the compared scores of each cell with all its runs, by its group and row."""
    score, scores = results.sweep.config.score, {}
    for cell in results.sweep.cells:
        known = results.known((cell.group, cell.row), score)
        if cell.runs and len(known) == len(cell.runs):
            scores[cell.group, cell.row] = known
    return scores


def aggregates_table(results: SweepResults) -> Table:
    """Return the aggregates over groups of each row of `complete_scores` (Agarwal et al. 2021).

    Of fewer than four groups, nothing is outside the middle half: no interquartile mean. The mean
    has the wider one of two intervals: over runs, and by the deviation of runs within groups, as
    the means of a few runs may agree by chance.
    """
    scores, baseline = complete_scores(results), results.sweep.config.baseline
    has_quartiles = len(complete_groups(results)) > 3
    rows = []
    for row, own in scores.items():
        over, within = pool([own.mean(1)]), pool(own.T)
        assert over and within  # a row has several runs
        spread = (over, len(own)), (within, own.size)
        deviation, count = max(spread, key=lambda each: each[0].half_width(each[1]))
        means = deviation.estimate(float(own.mean()), count, high=1)
        middle = estimate([interquartile_mean(run[None]) for run in own], high=1)
        texts = [one.text(".3f") for one in ((middle, means) if has_quartiles else (means,))]
        pairs = zip(own, scores[baseline], strict=False)
        beats = [probability_of_improvement(run[None], other[None]) for run, other in pairs]
        # No interval: it is a share of few pairs.
        texts.append(UNKNOWN if row == baseline else number(float(np.mean(beats)), ".3f"))
        runs, groups = map(str, own.shape)
        rows.append([row, _known_to(results.sweep, row), groups, runs, *texts])
    shown = ["interquartile mean", "mean"] if has_quartiles else ["mean"]
    headings = ["knows", "groups", "runs", *shown, f"probability to beat {baseline}"]
    return Table([results.sweep.config.heading, *headings], rows)


def profile_chart(results: SweepResults) -> Chart:
    """Return the share of runs above each value of the compared score, of each row."""
    scores, heading = complete_scores(results), SCORES[results.sweep.config.score].heading
    return Chart(
        "lines",
        [f"{threshold:.2f}" for threshold in THRESHOLDS],
        [performance_profile(own, THRESHOLDS) for own in scores.values()],
        list(scores),
        title=f"Share of runs above each {heading}",
        column_name=heading,
        value_name="share of runs",
        domain=(0, 1),
    )


def tuning_table(results: SweepResults) -> Table:
    """Return a row for each method, with the best of its settings if all have been tried."""
    rows, whole = [], tuning_scores(results)
    for method, scores in whole.items():
        best = settings_text(results.sweep.rows[max(scores, key=scores.__getitem__)].tuned or {})
        ends = [number(end, ".3f") for end in (max(scores.values()), min(scores.values()))]
        failed = len(results.sweep.tried[method]) - len(scores)
        tried = f"{len(scores)}" + (f", {failed} failed" if failed else "")
        rows.append([method, best, *ends, tried])
    unfinished = [method for method in results.sweep.tried if method not in whole]
    rows += [[method, "runs are missing or failed", *[UNKNOWN] * 3] for method in unfinished]
    return Table(["method", "best settings", "their NAUC", "lowest NAUC", "tried"], rows)


def oracle_table(results: SweepResults) -> Table:
    """Return a row for each method: its NAUC in each group, and the best of the settings tried.

    The last column has the means over the groups in which both are known.
    """
    rows = []
    for method, tried in results.sweep.tried.items():
        texts, known = [], []
        for group in results.sweep.groups:
            naucs = {row: results.estimate((group, row), "nauc").mean for row in tried}
            naucs = {row: nauc for row, nauc in naucs.items() if nauc is not None}
            if method not in naucs:
                texts.append(UNKNOWN)
                continue
            best = max(naucs, key=naucs.__getitem__)
            known.append((naucs[method], naucs[best]))
            setting = best.removeprefix(method).removeprefix(": ")
            texts.append(_both(*known[-1]) + (f" ({setting})" if setting else ""))
        rows.append([method, *texts, _both(*np.mean(known, 0)) if known else UNKNOWN])
    return Table(["method", *results.sweep.groups, "mean"], rows)


def _both(chosen: float, best: float) -> str:
    return f"{chosen:.3f}, {best:.3f}"


def paired_table(results: SweepResults) -> Table:
    """Return a row for each comparison of two rows, with the groups of each verdict."""
    rows = []
    for row, entry in results.sweep.rows.items():
        own = {place[0]: c for place, c in results.comparisons.items() if place[1] == row}
        if any(lists := _by_verdict(own)):
            rows.append([row, entry.against, *(names or UNKNOWN for names in lists)])
    header = [results.sweep.config.heading, "compared with", *VERDICTS]
    return Table(header, rows, text_columns=(0, 1, 2, 3, 4))


def _by_verdict(comparisons: Mapping[str, Comparison]) -> list[str]:
    """Return the titles of the comparisons with each of the VERDICTS, with semicolons between."""
    return [
        "; ".join(title for title, own in comparisons.items() if own.verdict == verdict)
        for verdict in VERDICTS
    ]


def cost_table(results: SweepResults, group: str) -> Table:
    """Return the source and the time of each row of a group, as means over runs."""
    rows = []
    for cell in results.sweep.cells_of(group):
        if (group, cell.row) not in results.made:
            continue
        records, algorithm = results.made[group, cell.row], cell.config.source.algorithm
        online = not reads_histories(cell.config)
        seconds = [
            number(estimate([r.seconds.get(name) for r in records]).mean, ".0f")
            for name in ("collect_s", "train_s", "evaluate_s")
        ]
        steps = f"{build_method(cell.config.method).train_steps(cell.config):,}"
        source = ["itself, online" if online else algorithm, knows(cell)]
        rows.append([cell.row, *source, _transitions(cell), steps, *seconds])
    header = ["source", "knows", "source transitions", "train steps"]
    seconds = ["collection, s", "training, s", "evaluation, s"]
    return Table([results.sweep.config.heading, *header, *seconds], rows)


def curves_chart(results: SweepResults, group: str) -> Chart | None:
    """Return a score of each row over the in-context episodes, None without records.

    It is the share of the optimal return in some episodes, or the success by fifths of the
    episodes where that is unknown.
    """
    places = [p for p in results.made if p[0] == group]
    curves = [f"at_{episode}" for episode in CURVE_EPISODES]
    names = [name for name in curves if any(results.known(place, name) for place in places)]
    columns, heading = [name.removeprefix("at_") for name in names], "in-context episode"
    value = "share of the optimal return"
    if not names:
        names = [name for name in FIFTHS if any(results.known(p, name) for p in places)]
        columns, heading = [str(k + 1) for k in range(len(names))], "fifth of the episodes"
        value = "success"
    if not names:
        return None
    estimates = [[results.estimate(place, name) for name in names] for place in places]
    return Chart(
        "lines",
        columns,
        [[own.mean for own in row] for row in estimates],
        [row for _, row in places],
        [[own.low for own in row] for row in estimates],
        [[own.high for own in row] for row in estimates],
        column_name=heading,
        value_name=value,
    )


def scores_chart(results: SweepResults, group: str) -> Chart | None:
    """Return the compared score of each row with its interval, None without records."""
    score = SCORES[results.sweep.config.score]
    rows = [place[1] for place in results.made if place[0] == group]
    estimates = [results.estimate((group, row), score.name) for row in rows]
    if not rows:
        return None
    ends = [[own.low for own in estimates]], [[own.high for own in estimates]]
    return Chart(
        "points", rows, [[own.mean for own in estimates]], ("",), *ends, value_name=score.heading
    )


def tasks_chart(results: SweepResults, group: str) -> Choice | None:
    """Return the share of the optimal return by held-out task, a chart for each row.

    A task has the same place for each row: first the one with the highest mean over rows.
    """
    shares: dict[str, dict[str, float]] = {}
    for place, records in results.made.items():
        tasks = [record.values[""]["per_task"] for record in records]
        if place[0] == group and any(tasks):  # runs may have splits of their own
            shares[place[1]] = {
                task: float(np.mean([own[task] for own in tasks if task in own]))
                for task in dict.fromkeys(task for own in tasks for task in own)
            }
    if not shares:
        return None
    names = dict.fromkeys(task for own in shares.values() for task in own)
    mean = {t: np.mean([own[t] for own in shares.values() if t in own]) for t in names}
    order = sorted(names, key=lambda task: -mean[task])
    charts = {
        row: [
            Chart(
                "columns",
                order,
                [[own.get(task) for task in order]],
                column_name="held-out task, the first of a rollout if tasks change",
                value_name="share of optimum, last 10",
            )
        ]
        for row, own in shares.items()
    }
    return Choice("tasks of", charts)


def _worlds(results: SweepResults, cell: Cell) -> list[str]:
    """Return the worlds in which a cell was evaluated, "" for its own; none without records."""
    records = results.made.get((cell.group, cell.row), [])
    worlds = ["", *map(world_title, cell.config.evaluation.worlds)] if records else []
    return [world for world in worlds if any(world in record.values for record in records)]


def _title(results: SweepResults, cell: Cell, folder: Path) -> str:
    """Return the title of a row, bold if it is the baseline, as a link if it names a file."""
    group = results.sweep.groups[cell.group]
    file = group.rows.get(cell.row, {}).get("experiment")
    text = f"[{cell.row}]({Path(os.path.relpath(file, folder)).as_posix()})" if file else cell.row
    return f"**{text}**" if cell.row == group.baseline else text


def _runs(results: SweepResults, cell: Cell) -> str:
    """Return the number of runs that a row is the mean of, as text."""
    made, planned = len(results.made[cell.group, cell.row]), len(cell.runs)
    return str(made) + ("" if made == planned else f" of {planned}")


def _transitions(cell: Cell) -> str:
    return f"{build_method(cell.config.method).transitions(cell.config):,}"


def _references_text(results: SweepResults, place: Place, world: str) -> str:
    """Return the mean NAUC of each of SHOWN_REFERENCES over the splits, as text."""
    records = [record for record in results.made[place] if world in record.values]
    splits = [record.split_seed for record in records]
    means = [
        estimate([reference_nauc(record, name, world) for record in records], splits).mean
        for name in SHOWN_REFERENCES
    ]
    return UNKNOWN if set(means) == {None} else ", ".join(number(mean, ".3f") for mean in means)
