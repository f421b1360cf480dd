"""The measure `learning`: how source agents learn with each of several settings, without a model.

Every setting is tried on the same few train tasks, with the random keys that collection derives for
them, so that an agent learns bit for bit as in a collection with that setting; held-out tasks would
no longer be unseen. Only learning curves are kept. Settings that agree in the `shared_settings` of
the source are tried side by side.

Settings are ranked by area, the mean return over env steps. A history has converged at the first
strided episode with 0.9 of the final return. The table counts that in strided episodes, to be
compared with `evaluation.episodes`, and in context windows. With less than one window, most windows
show an agent that has converged; with many, no window shows an agent improve. With the suggested
stride it would be one.
"""

import dataclasses
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ad.collection.job import limit_threads, new_source
from ad.config.schema import Experiment, dump
from ad.data import curves as learning_curves
from ad.data.curves import LearningCurves
from ad.data.episodes import ratio
from ad.data.store import mean_in_order
from ad.errors import ConfigError
from ad.evaluation.metrics import bootstrap, json_number
from ad.evaluation.scores import Estimate, number
from ad.evaluation.summary import task_facts
from ad.registry import SOURCES
from ad.reporting.page import Chart, Section, Table, Text
from ad.runtime.files import write_text
from ad.runtime.run import Run
from ad.sweeps.measures import Measure, made_with
from ad.sweeps.plan import PlannedRun, Sweep
from ad.sweeps.records import Record, Records, new_record
from envs.tasks import task_name

MAX_AGENTS = 128  # in a batch: more do not lower the cost of an agent's step
LEARNED = 0.5  # a task counts as learned from this fraction of `Search.scale` on
BEST = 5  # settings whose learning curves are drawn
COLUMNS = {  # score -> heading and number format
    "final_return": ("return, end", ".2f"),
    "path_ratio": ("path / shortest, end", ".2f"),
    "entropy": ("entropy, end", ".2f"),
    "episodes_to_90_percent": ("90 % at strided episode", ".1f"),
    "windows_to_90_percent": ("windows to 90 %", ".2f"),
    "suggested_stride": ("suggested stride", ".0f"),
}


class LearningMeasure(Measure):
    """The learning curves of source agents with the settings of each run."""

    def bundles(self, runs: Sequence[PlannedRun]) -> list[list[PlannedRun]]:
        """Return `runs` in groups that one source can run: all but its settings are equal."""
        most = max(MAX_AGENTS // self.sweep.config.search_tasks, 1)
        alike: dict[str, list[PlannedRun]] = {}
        for run in runs:
            source = run.config.source
            shared = SOURCES.load(source.algorithm).shared_settings
            shared = tuple(source.settings) if shared is None else shared
            own = {name: source.settings.get(name) for name in shared}
            plain = dataclasses.replace(source, settings=own)
            alike.setdefault(
                repr((run.config.env, run.config.split, run.config.data.history_stride, plain)), []
            ).append(run)
        return [
            group[start : start + most]
            for group in alike.values()
            for start in range(0, len(group), most)
        ]

    def check(self, runs: Iterable[PlannedRun]) -> None:
        """Raise ConfigError if an actor's sequence may be too short for one strided episode."""
        for run in runs:
            config = run.config
            episodes, stride = (
                _steps(config) // config.env.episode_length,
                config.data.history_stride,
            )
            if episodes < stride:
                raise ConfigError(
                    f"{run.label}: the {_steps(config)} transitions of an actor may hold "
                    f"{episodes} episodes, fewer than data.history_stride ({stride}): raise "
                    "source.env_steps"
                )

    def make(self, runs: Sequence[PlannedRun], root: Path) -> Iterator[Record]:
        """Run an agent for each of `runs` and each task; yield a record with its curves."""
        if not runs:
            return
        opened = Run(runs[0].in_root(root))
        tasks = searched_tasks(self.sweep, opened)
        seconds, curves, statistics = _learn(opened, runs, tasks)
        for n, run in enumerate(runs):
            own = slice(n * len(tasks), (n + 1) * len(tasks))
            values = {
                "tasks": [task_name(task) for task in tasks],
                "curves": {name: _plain(array[own]) for name, array in curves.items()},
                "statistics": {name: _plain(array[own]) for name, array in statistics.items()},
            }
            times = {"collect_s": seconds / len(runs)}
            yield new_record(run, values=values, seconds=times, made_with=made_with(opened))


@dataclasses.dataclass(frozen=True)
class Search:
    """The results of S settings on N tasks: `scores` float [S, N] by name, NaN for a missing one.

    `curves` are those of `ad.data.curves`, [S, N, J] for J strided episodes. `scale` [N] is the
    return that counts as 1 in the area under a curve: the optimal return, or the best final return
    of these settings if it is unknown.
    """

    runs: list[PlannedRun]
    tasks: list[str]
    curves: dict[str, np.ndarray]
    scores: dict[str, np.ndarray]
    scale: np.ndarray


def read_search(sweep: Sweep, runs: Sequence[PlannedRun], records: Sequence[Record]) -> Search:
    """Return the scores of `runs` by their `records`."""
    longest = max(len(curve) for record in records for curve in record.values["curves"]["return"])

    def padded(name: str) -> np.ndarray:
        rows = [record.values["curves"][name] for record in records]
        return np.array([[_pad(curve, longest) for curve in own] for own in rows], float)

    curves = {name: padded(name) for name in records[0].values["curves"]}
    statistics = {
        name: np.array([record.values["statistics"][name] for record in records], float)
        for name in records[0].values["statistics"]
    }
    opened, config = Run(runs[0].config), runs[0].config
    facts = task_facts(opened.world, config.env.episode_length, searched_tasks(sweep, opened))
    best = np.nanmax([learning_curves.final_mean(own) for own in curves["return"]], axis=0)
    scale = np.where(np.isfinite(facts.optimal_return), facts.optimal_return, best)
    shape = curves["return"].shape[:2]
    flat = {name: values.reshape(-1, longest) for name, values in curves.items()}
    final = {name: learning_curves.final_mean(own).reshape(shape) for name, own in flat.items()}
    # An agent that stopped with non-finite numbers counts as one that learned nothing.
    learned = (statistics["stopped"] == 0) & (final["return"] >= LEARNED * scale)
    stride = config.data.history_stride
    converged = learning_curves.episodes_to_converge(
        flat["return"], config.source.num_envs * stride
    )
    episodes = np.where(learned.ravel(), converged, np.nan)
    steps = learning_curves.steps_until(flat["length"], episodes).reshape(shape)
    windows = steps / config.data.context_length
    paths = ratio(ratio(final["success_length"], final["success"]), facts.shortest)
    scores = {
        "area": ratio(learning_curves.area(flat).reshape(shape), scale),
        "final_return": final["return"],
        "path_ratio": paths if facts.success_ends else np.full(shape, np.nan),
        "learned": learned.astype(float),
        "episodes_to_90_percent": episodes.reshape(shape),
        "windows_to_90_percent": windows,
        "suggested_stride": stride * windows,
    }
    return Search([*runs], records[0].values["tasks"], curves, scores | statistics, scale)


def searched_tasks(sweep: Sweep, run: Run) -> np.ndarray:
    """Return the train tasks that settings are tried on: the first, in the split's random order."""
    return run.split.train_tasks[: sweep.config.search_tasks]


def _learn(run: Run, runs: Sequence[PlannedRun], tasks: np.ndarray) -> tuple[float, dict, dict]:
    """Return the seconds, the curves [S N, J] and the final statistics [S N] of the agents."""
    config, num_agents = run.config, len(runs) * len(tasks)
    limit_threads(config)
    settings_class = SOURCES.load(config.source.algorithm).Settings
    settings = [settings_class(**own.config.source.settings) for own in runs for _ in tasks]
    num_envs, stride = config.source.num_envs, config.data.history_stride
    curves = LearningCurves(run.world, num_agents, num_envs, _steps(config), stride)
    statistics: dict[str, list] = {}
    start = time.perf_counter()
    source = new_source(config, np.tile(tasks, (len(runs), 1)), settings)
    for chunk in source.run(_steps(config)):
        curves.add(chunk)
        for name, values in chunk.statistics.items():
            statistics.setdefault(name, []).append(mean_in_order(values))
    final = {name: learning_curves.final_mean(np.stack(s, 1)) for name, s in statistics.items()}
    stopped = np.zeros(num_agents) if source.stopped_at is None else source.stopped_at >= 0
    return time.perf_counter() - start, curves.curves(), final | {"stopped": stopped.astype(float)}


def _steps(config: Experiment) -> int:
    """Return the transitions of an actor."""
    return config.source.env_steps // config.source.num_envs


def _plain(array: np.ndarray) -> list:
    """Return an array as nested lists, without the unknown numbers at the end of a row."""
    if array.ndim == 1:
        return [json_number(value) for value in array]
    ends = np.isfinite(array).sum(1)
    return [
        [json_number(value) for value in row[:end]] for row, end in zip(array, ends, strict=True)
    ]


def _pad(curve: list, length: int) -> list:
    return [*curve, *[np.nan] * (length - len(curve))]


def learning_section(sweep: Sweep, records: Records, root: Path) -> Section:
    """Return the section of the settings with records; write the best to `<root>/best.yaml`."""
    runs = [run for run in sweep.planned_runs() if run.key in records]
    runs = [run for run in runs if not records[run.key].failure]
    if not runs:
        return Section("Settings", [Text("No setting has been tried yet.")])
    search = read_search(sweep, runs, [records[run.key] for run in runs])
    order = rank(search)
    best = runs[order[0]].config
    root.mkdir(parents=True, exist_ok=True)
    write_text(root / "best.yaml", dump(dataclasses.replace(best, name=f"{sweep.name}_best")))
    text = (
        f"{len(runs)} settings on {len(search.tasks)} tasks, ranked by area. The experiment with "
        f"the best of them is {root / 'best.yaml'}."
    )
    blocks = [Text(text), _table(search, order), _curves(search, order)]
    return Section("Settings", [*blocks, *_marginals(search)])


def rank(search: Search) -> np.ndarray:
    """Return the settings' indices, the largest mean area first, equal ones in order."""
    return np.argsort(-_mean(search.scores["area"]), kind="stable")


def _table(search: Search, order: np.ndarray) -> Table:
    """Return a row for each setting in this `order`; area has its 95 % interval over tasks."""
    low, high = bootstrap(search.scores["area"].T)
    means = {name: _mean(values) for name, values in search.scores.items()}
    columns = {name: column for name, column in COLUMNS.items() if name in means}
    rows = []
    for s in order:
        area = Estimate(json_number(means["area"][s]), low[s], high[s]).text(".3f")
        learned = f"{np.nansum(search.scores['learned'][s]):.0f} of {len(search.tasks)}"
        rest = [number(json_number(means[n][s]), style) for n, (_, style) in columns.items()]
        rows.append([search.runs[s].row, area, learned, *rest])
    headings = [heading for heading, _ in columns.values()]
    return Table(["settings", "area", "learned", *headings], rows).compact()


def _curves(search: Search, order: np.ndarray) -> Chart:
    """Return the learning curves of the best settings, as long as an evaluation."""
    config = search.runs[0].config
    shown = search.curves["return"][order[:BEST], :, : config.evaluation.episodes]
    curves = (shown / search.scale[:, None]).mean(1)  # [BEST, J], NaN where one task has ended
    stride = config.data.history_stride
    return Chart(
        "lines",
        list(range(1, curves.shape[1] + 1)),
        curves,
        [search.runs[s].row for s in order[:BEST]],
        title="Learning curves of the best settings",
        column_name=f"episode of the history at stride {stride}",
        value_name="return / best possible",
    )


def _marginals(search: Search) -> list[Chart]:
    """Return the mean area by each value of a setting, for settings that have several values."""
    area, charts = _mean(search.scores["area"]), []
    settings = [run.config.source.settings for run in search.runs]
    for name in settings[0]:
        values = [str(own.get(name)) for own in settings]
        kinds = list(dict.fromkeys(values))
        if 1 < len(kinds) <= len(values) // 2:  # of a single setting each value is a row
            means = [
                np.nanmean([a for a, v in zip(area, values, strict=True) if v == k]) for k in kinds
            ]
            charts.append(
                Chart("columns", kinds, [means], title=f"Area by {name}", value_name="mean area")
            )
    return charts


def _mean(scores: np.ndarray) -> np.ndarray:
    """Return means over the tasks that have a score, [S, N] -> [S]."""
    known = np.isfinite(scores)
    return ratio(np.where(known, scores, 0).sum(1), known.sum(1))
