"""The report of a search: `tuning.csv`, `table.md`, `tuning.png` and `best.yaml`, best first.

Settings are ranked by area, the mean return over env steps, or by pace, the closeness to
`tune.rise_windows`. A history has converged at the first strided episode with 0.9 of the final
return. The table counts that in strided episodes, to be compared with `evaluation.episodes`, and in
context windows. With fewer windows than wanted, most windows show an agent that has converged; with
many more, no window shows an agent improve. The stride that fits would give the wanted number. A
setting that fails on a task has no pace.
"""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pyrallis

from ad.config.fields import label
from ad.config.schema import Experiment, dump
from ad.data.episodes import ratio
from ad.evaluation import metrics
from ad.reporting.tables import Table, number
from ad.runtime.console import info
from ad.runtime.files import atomic_write, write_text
from ad.sweeps.tuning.plots import tuning_picture
from ad.sweeps.tuning.search import Tuning, tune, tuning_folder
from envs.tasks import task_name

PRINTED = 20  # settings in the table on the terminal
COLUMNS = {  # score -> heading and number format
    "final_return": ("return, end", ".2f"),
    "path_ratio": ("path / shortest, end", ".2f"),
    "entropy": ("entropy, end", ".2f"),
    "rise_episodes": ("90 % at strided episode", ".1f"),
    "rise_windows": ("windows to 90 %", ".2f"),
    "fitting_stride": ("stride that fits", ".0f"),
}


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Means over tasks, float [S] by score, and the settings' indices in the order of a score."""

    means: dict[str, np.ndarray]
    orders: dict[str, np.ndarray]  # by "area" and by "pace"


def tune_and_report(config: Experiment, fresh: bool = False) -> None:
    """Try the settings of `tune.grid` that are not tried yet (with `fresh`, all) and rank them."""
    folder = tuning_folder(config)
    tuning = tune(config, fresh)
    write_text(folder / "config.yaml", dump(config))
    table = write_report(config, tuning, folder)
    info(Table(table.header, table.rows[:PRINTED]).markdown())
    info(f"tune: {len(table.rows)} settings on {len(tuning.tasks)} tasks, the best in {folder}")


def rank(config: Experiment, tuning: Tuning) -> Ranking:
    """Rank the settings; equal ones stay in the order of the grid."""
    means = {name: _mean(values) for name, values in tuning.scores.items()}
    failed = means["learned"] < 1
    distance = np.abs(np.log(means["rise_windows"] / config.tune.rise_windows))
    pace = np.lexsort((-means["area"], np.where(failed, np.inf, distance)))
    return Ranking(means, {"area": np.argsort(-means["area"], kind="stable"), "pace": pace})


def write_report(config: Experiment, tuning: Tuning, folder: Path) -> Table:
    """Write the four files into `folder`. Returns the table, best settings first."""
    ranking = rank(config, tuning)
    order = ranking.orders[config.tune.rank_by]
    table = tuning_table(config, tuning, ranking, order)
    write_text(folder / "table.md", table.markdown())
    best = pyrallis.encode(tuning.settings[order[0]])
    source = dataclasses.replace(config.source, settings=best)
    write_text(folder / "best.yaml", dump(dataclasses.replace(config, source=source)))
    with atomic_write(folder / "tuning.csv") as path, open(path, "w", newline="") as file:
        csv.writer(file).writerows(_csv_lines(tuning))
    with atomic_write(folder / "tuning.png") as path:
        path.write_bytes(tuning_picture(config, tuning, ranking.means, order))
    return table


def tuning_table(config: Experiment, tuning: Tuning, ranking: Ranking, order: np.ndarray) -> Table:
    """Return a row for each setting in this `order`; area has its 95 % interval over tasks."""
    places = [np.argsort(order) for order in ranking.orders.values()]
    low, high = metrics.bootstrap(tuning.scores["area"].T)
    columns = {name: column for name, column in COLUMNS.items() if name in ranking.means}
    rows = []
    for s in order:
        mean = {name: metrics.json_number(values[s]) for name, values in ranking.means.items()}
        area = f"{number(mean['area'], '.3f')} [{low[s]:.3f}, {high[s]:.3f}]"
        learned = f"{np.nansum(tuning.scores['learned'][s]):.0f} of {len(tuning.tasks)}"
        own = [label(getattr(tuning.settings[s], name)) for name in config.tune.grid]
        rest = [number(mean[name], style) for name, (_, style) in columns.items()]
        rows.append([*own, area, learned, *rest, *(str(place[s] + 1) for place in places)])
    headings = [heading for heading, _ in columns.values()]
    ranks = [f"by {name}" for name in ranking.orders]
    header = [*config.tune.grid, "area", "learned", *headings, *ranks]
    return Table(header, rows).compact()


def _csv_lines(tuning: Tuning):
    """Yield a CSV line for each setting and task: all settings and scores, empty if missing."""
    names = [field.name for field in dataclasses.fields(tuning.settings[0])]
    yield [*names, "task", *tuning.scores]
    for s, own in enumerate(tuning.settings):
        for n, task in enumerate(tuning.tasks):
            values = [scores[s, n] for scores in tuning.scores.values()]
            known = ["" if np.isnan(value) else f"{value:.6g}" for value in values]
            yield [*(getattr(own, name) for name in names), task_name(task), *known]


def _mean(scores: np.ndarray) -> np.ndarray:
    """Return means over the tasks that have a score, [S, N] -> [S]."""
    known = np.isfinite(scores)
    return ratio(np.where(known, scores, 0).sum(1), known.sum(1))
