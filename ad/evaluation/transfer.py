"""Evaluate the frozen model in worlds that it was not trained in: other room sizes, other starts.

Each entry of `evaluation.worlds` is a dict of settings that replace those in `env.kwargs`; `change`
replaces `env.change`, so that tasks may change in an evaluation alone. The results of such a world
are in `logs/<run>/worlds/<name>/`, and its `results.json` says which `world` it is. Its train tasks
are those that are equal to a train task of the run by the world's `relative_tasks`: for rooms the
goals with the same offset from the center. The model is evaluated on at most
`evaluation.num_train_tasks` of them. Tasks that are not train tasks are held out, but see
`envs.tasks.other_split` for runs that hold out some tasks only. The checkpoint must come from the
run's own world.
"""

from dataclasses import replace

from ad.config.world import configured_world, evaluated_env
from ad.evaluation.evaluate import evaluation_rollouts, load_model
from ad.evaluation.references import evaluated_references
from ad.evaluation.results import read_results, write_results
from ad.evaluation.summary import SUMMARY, identity, matches, scores, write_results_json
from ad.runtime.files import read_checked_json, remove
from ad.runtime.run import Run, world_folder, world_title
from envs.tasks import other_split


class TransferEvaluation:
    """Evaluation of a run's model in the world with other `env.kwargs` or another `env.change`."""

    def __init__(self, run: Run, kwargs: dict):
        self.run, self.kwargs = run, kwargs
        self.config = replace(run.config, env=evaluated_env(run.config.env, kwargs))
        split = other_split(run.split, self.config.env.kwargs)
        self.evaluated_split = split.with_train_tasks(run.config.evaluation.num_train_tasks)
        self.base_env = configured_world(self.config.env)
        self.folder = world_folder(run.folder, kwargs)
        self.title = f"{run.config.name}, {world_title(kwargs)}"

    def evaluate(self) -> None:
        """Evaluate the trained model of the run in this world and write its result files."""
        model = load_model(self.run, self.base_env)
        results = evaluation_rollouts(self.config, self.evaluated_split, model)
        self.folder.mkdir(parents=True, exist_ok=True)
        remove(self.folder / SUMMARY)  # so that an interrupted evaluation is none
        write_results(self.folder, self.evaluated_split, results)
        evaluations = read_results(self.folder / "results.csv")
        world, length = self.base_env, self.config.env.episode_length
        references = evaluated_references(self.config, self.evaluated_split, evaluations)
        summary = scores(world, length, evaluations, references)
        about = {"name": self.title, "world": self.kwargs, "timing": self.run.timing()}
        write_results_json(self.folder, about | summary | self._identity())

    def results(self) -> dict | None:
        """Return the content of `results.json`; None unless `is_evaluated`."""
        return read_checked_json(self.folder / SUMMARY) if self.is_evaluated() else None

    def is_evaluated(self) -> bool:
        """Return whether there are undamaged results of the present settings and model."""
        return matches(self.folder, self._identity())

    def _identity(self) -> dict:
        return identity(self.run) | {"split_hash": self.evaluated_split.hash}


def evaluate_worlds(run: Run, fresh: bool = False) -> list[TransferEvaluation]:
    """Evaluate in the worlds without results, or in all if `fresh`, and return those worlds."""
    worlds = [TransferEvaluation(run, kwargs) for kwargs in run.config.evaluation.worlds]
    due = [world for world in worlds if fresh or not world.is_evaluated()]
    for world in due:
        world.evaluate()
    return due


def world_results(run: Run) -> dict[str, dict]:
    """Return the content of `results.json` of each evaluated world, by its title."""
    worlds = [TransferEvaluation(run, kwargs) for kwargs in run.config.evaluation.worlds]
    by_title = {world.title: world.results() for world in worlds}
    return {title: results for title, results in by_title.items() if results is not None}
