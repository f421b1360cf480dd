"""The frozen model in worlds that it was not trained in: rooms of other sizes, other starts.

`evaluation.worlds` lists settings that take the place of those in `env.kwargs`. Each such world has
a folder `logs/<run>/worlds/<name>/` with the files of an evaluation; its `results.json` says which
`world` it is about. "Train" there are the goals that were trained on at home, as far from the
centre; all others are held out. The checkpoint is still held to the world it was trained in.
"""

from dataclasses import replace

import envs
from ad.evaluation.evaluate import load_model
from ad.evaluation.results import read_results, write_results
from ad.evaluation.summary import (
    SUMMARY,
    identity,
    matches,
    scores,
    world_lines,
    write_results_json,
)
from ad.methods import build_method
from ad.rollout.tasks import rollout_tasks
from ad.runtime.files import read_checked_json
from ad.runtime.run import Run, world_folder, world_title
from envs.tasks import other_split


class TransferEvaluation:
    """One of them: its configuration (`env` is another), its tasks and its folder in a run's."""

    def __init__(self, run: Run, kwargs: dict):
        self.run, self.kwargs = run, kwargs
        merged = run.config.env.kwargs | kwargs
        self.config = replace(run.config, env=replace(run.config.env, kwargs=merged))
        self.split = other_split(run.split, merged)
        self.base_env = envs.world(run.config.env.id, run.config.env.tasks, **merged)
        self.folder = world_folder(run.folder, kwargs)
        self.title = f"{run.config.name}, {world_title(kwargs)}"

    def evaluate(self) -> None:
        """Play the trained model of the run here; write results.csv and results.json."""
        settings = self.config.evaluation
        model, method = load_model(self.run, self.base_env), build_method(self.config.method)
        seeds = (settings.eval_seeds, settings.train_eval_seeds)
        results = rollout_tasks(
            self.config, self.split, model, method, settings.episodes, seeds, True, show=True
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        write_results(self.folder, self.split, results)
        evaluations = read_results(self.folder / "results.csv")
        facts = self.base_env, self.config.env.episode_length
        summary = scores(*facts, evaluations, world_lines(*facts, evaluations))
        about = {"name": self.title, "world": self.kwargs, "timing": self.run.timing()}
        write_results_json(self.folder, about | summary | self._identity())

    def results(self) -> dict | None:
        """The content of `results.json`; None unless it is about the present settings and model."""
        return read_checked_json(self.folder / SUMMARY) if self.is_evaluated() else None

    def is_evaluated(self) -> bool:
        """Whether results are there, whole, and about the present settings and model."""
        return matches(self.folder, self._identity())

    def _identity(self) -> dict:
        return identity(self.run) | {"split_hash": self.split.hash}


def evaluate_worlds(run: Run, fresh: bool = False) -> list[TransferEvaluation]:
    """Evaluate in every world of `evaluation.worlds` that has no results yet; those worlds."""
    worlds = [TransferEvaluation(run, kwargs) for kwargs in run.config.evaluation.worlds]
    due = [world for world in worlds if fresh or not world.is_evaluated()]
    for world in due:
        world.evaluate()
    return due


def world_results(run: Run) -> dict[str, dict]:
    """`results.json` of each world that is evaluated, by its title."""
    worlds = [TransferEvaluation(run, kwargs) for kwargs in run.config.evaluation.worlds]
    found = {world.title: world.results() for world in worlds}
    return {title: results for title, results in found.items() if results is not None}
