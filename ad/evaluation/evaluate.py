"""Evaluate the trained model of a run by in-context rollouts on its train and held-out tasks."""

from dataclasses import replace
from pathlib import Path

from ad.config.schema import Experiment
from ad.data.spec import spec_from_dict
from ad.errors import ConfigError, CorruptError
from ad.evaluation.calibration import asked_return, write_calibration
from ad.evaluation.results import write_results
from ad.evaluation.source_play import source_rollouts
from ad.evaluation.summary import SUMMARY, is_evaluated, write_summary
from ad.methods import build_method, build_model, train_steps
from ad.models.sequence_model import SequenceModel
from ad.rollout.rollout import Rollout
from ad.rollout.tasks import policy_of, rollout_tasks
from ad.runtime.console import warn
from ad.runtime.devices import choose_device
from ad.runtime.files import remove
from ad.runtime.run import Run
from ad.training import checkpoints
from ad.training.provenance import check_fingerprint
from envs.spaces import observation_parts
from envs.tasks import Split


def evaluate(run: Run, fresh: bool = False) -> bool:
    """Evaluate the trained model of `run` and write its result files.

    Returns False, and evaluates nothing, if the results exist and not `fresh`.
    """
    has_model = build_method(run.config.method).has_model
    if has_model:
        _trained_checkpoint(run)  # raises ConfigError without one
    if not fresh and is_evaluated(run):
        return False
    if not fresh and (run.folder / SUMMARY).exists():
        warn(f"the results in {run.folder} are of other settings or weights: they are replaced")
    model = load_model(run) if has_model else None
    with run.timed("evaluate_s", reset=True):
        if model is None:
            results = source_rollouts(run.config, run.evaluated_split)
        else:
            results = evaluation_rollouts(run.config, run.evaluated_split, model)
        # Removed before new files are written, so that an interruption leaves no results.
        old = run.folder / SUMMARY, run.folder / "demo.html", *run.videos.glob("held_out_*")
        for path in old:
            remove(path)
        if model is not None:
            write_calibration(run.folder, run.config, run.split, model)
    write_results(run.folder, run.evaluated_split, results)
    write_summary(run, None if model is None else asked_return(run.config, model))
    return True


def load_model(run: Run, world=None, step: int | None = None) -> SequenceModel:
    """Load the trained model of `run`, frozen; for the spaces of `world` if it is given.

    `step` is the train step of its checkpoint, None for the last one of a finished training. Raises
    ConfigError if that is not there, if its tasks or settings differ from those configured or its
    weights from those of the class, CorruptError if the checkpoint is damaged. Earlier checkpoints
    are not used instead, since they are other models.
    """
    device = choose_device(run.config)
    try:
        path = _trained_checkpoint(run) if step is None else checkpoint_at(run, step)
        content = checkpoints.load(path)
    except CorruptError as error:
        fresh = "" if step is None else " --fresh true"  # training resumes behind an earlier step
        raise CorruptError(f"{error}; `ad train{fresh}` makes it again") from error
    check_fingerprint(content, run.config, run.split)
    spec = spec_from_dict(content["spec"])
    if world is not None:
        spec = replace(spec, observation=observation_parts(world))
    model = build_model(build_method(run.config.method), spec, run.config, device)
    checkpoints.load_weights(model, content)
    return model.eval().requires_grad_(False)


def evaluation_rollouts(
    config: Experiment, split: Split, model: SequenceModel
) -> dict[str, Rollout]:
    """Play the configured evaluation of `model` on all tasks of `split`: rollouts by split name."""
    settings, new_policy = config.evaluation, policy_of(config, build_method(config.method), model)
    seeds = (settings.eval_seeds, settings.train_eval_seeds)
    return rollout_tasks(
        config,
        split,
        new_policy,
        settings.episodes,
        seeds,
        record=True,
        show=True,
        env_steps=settings.env_steps,
    )


def checkpoint_at(run: Run, step: int) -> Path:
    """Return the path of the checkpoint of a train step. Raises ConfigError if there is none."""
    folder = run.folder / "checkpoints"
    path, steps = folder / checkpoints.name(step), checkpoints.steps(folder)
    if step not in steps:
        present = ", ".join(map(str, steps)) or "none"
        raise ConfigError(
            f"{run.folder} has no checkpoint of train step {step}, only of: {present}; "
            "training.keep_every keeps more"
        )
    return path


def _trained_checkpoint(run: Run) -> Path:
    """Return the path of the last checkpoint. Raises ConfigError if training is not finished."""
    if not build_method(run.config.method).has_model:
        raise ConfigError(f"{run.config.name} has no model: its method is {run.config.method.name}")
    path = checkpoints.newest(run.folder / "checkpoints")
    expected = checkpoints.name(train_steps(run.config))
    if path is None or path.name != expected:
        raise ConfigError(f"{run.folder} holds no finished training: run `ad train` first")
    return path
