"""Constraints between settings, each a function of the values that it reads.

A constraint returns the rest of a sentence about its first setting, or None. It is skipped while
one of its settings already has a problem.
"""

import operator
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from ad.config.fields import Problem, as_yaml, overlaps
from ad.config.schema import Experiment
from ad.config.split import configured_split
from ad.registry import SIZE_INDEPENDENT_ENCODERS, SOURCES
from envs import make_base
from envs.tasks import RESERVED, check_all_tasks, other_split

CONSTRAINTS: list[tuple[tuple[str, ...], Callable[..., str | None]]] = []
FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def constraint(*paths: str) -> Callable:
    """Register the decorated function as a constraint on the values at the dotted `paths`."""

    def register(function: Callable) -> Callable:
        CONSTRAINTS.append((paths, function))
        return function

    return register


def violations(config: Experiment, bad: set[str]) -> Iterator[Problem]:
    """Yield the problem of each violated constraint; `bad`: paths that already have a problem."""
    bad = set(bad)
    for paths, check in CONSTRAINTS:
        if any(overlaps(path, other) for path in paths for other in bad):
            continue
        if text := check(*(operator.attrgetter(path)(config) for path in paths)):
            bad.add(paths[0])
            yield Problem(paths[0], text)


@constraint("name")
def name_is_a_folder_name(name):
    if not FOLDER_NAME.fullmatch(name):
        return (
            "must be a plain folder name (letters, digits, '.', '_', '-'; a letter or digit first; "
            f"at most 100), not {as_yaml(name)}"
        )


@constraint("root")
def root_is_a_folder(root):
    if not Path(root).is_dir():
        return f"must be an existing folder, not {as_yaml(root)}"


@constraint("env.kwargs")
def env_kwargs_are_not_reserved(kwargs):
    return _reserved(kwargs)


@constraint("env")
def env_can_be_created(env):
    try:
        check_all_tasks(env.id, env.kwargs, env.tasks)
    except Exception as error:  # another package's environment may raise anything
        return f"cannot be created: {' '.join(str(error).split())}"


@constraint("source.algorithm", "env")
def source_can_learn_in_the_world(algorithm, env):
    problem = getattr(SOURCES.load(algorithm), "problem", lambda world, tasks: None)
    world = make_base(env.id, env.tasks, **env.kwargs)
    if text := problem(world, world.all_tasks()):
        return f"cannot be {algorithm} with {env.id}: {algorithm} {text}"


@constraint("split", "env")
def split_is_possible(split, env):
    try:
        configured_split(env, split)
    except ValueError as error:
        return f"is not possible: {error}"


@constraint("source.env_steps", "source.num_envs")
def env_steps_are_divisible_by_num_envs(env_steps, num_envs):
    if env_steps % num_envs:
        return f"must be a multiple of source.num_envs ({num_envs}), not {env_steps}"


@constraint("evaluation.worlds", "env", "split", "model.encoder")
def model_can_be_evaluated_on_worlds(worlds, env, split, encoder):
    if not worlds:
        return None
    trained_split = configured_split(env, split)
    trained = make_base(env.id, env.tasks, **env.kwargs).observation_factors
    for number, kwargs in enumerate(worlds):
        if kwargs in worlds[:number]:
            return f"must not list {as_yaml(kwargs)} twice"
        if text := _reserved(kwargs):
            return text
        merged = env.kwargs | kwargs
        try:
            other_split(trained_split, merged)
            evaluated = make_base(env.id, env.tasks, **merged).observation_factors
        except Exception as error:  # another package's environment may raise anything
            return f"must not list {as_yaml(kwargs)}: {' '.join(str(error).split())}"
        if evaluated != trained and encoder not in SIZE_INDEPENDENT_ENCODERS:
            return (
                f"must not list {as_yaml(kwargs)}: model.encoder {encoder} is for the "
                f"{_size(trained)} observations of training, not for {_size(evaluated)} "
                f"({', '.join(sorted(SIZE_INDEPENDENT_ENCODERS))} is for any size)"
            )


@constraint("data.env_steps", "source.env_steps", "source.num_envs")
def history_has_env_steps(env_steps, collected, num_envs):
    if env_steps > collected:
        return f"must be at most source.env_steps ({collected}), not {env_steps}"
    if env_steps % num_envs:
        return f"must be a multiple of source.num_envs ({num_envs}), not {env_steps}"


@constraint(
    "data.context_length",
    "data.history_stride",
    "data.env_steps",
    "source.env_steps",
    "source.num_envs",
)
def context_fits_into_a_training_sequence(context_length, stride, env_steps, collected, num_envs):
    steps = (env_steps or collected) // num_envs
    if (longest := steps // stride) < context_length:
        return (
            f"must be at most {longest}, not {context_length}: with data.history_stride {stride} "
            f"an actor's {steps} transitions (source.env_steps / source.num_envs) make training "
            f"sequences of about {longest}"
        )


@constraint("data.held_out_actors", "source.num_envs")
def some_actors_are_not_held_out(held_out_actors, num_envs):
    if held_out_actors >= num_envs:
        return f"must be below source.num_envs ({num_envs}), not {held_out_actors}"


@constraint("data.actors_per_task", "data.held_out_actors", "source.num_envs")
def actors_per_task_are_not_held_out(actors_per_task, held_out_actors, num_envs):
    if actors_per_task > (left := num_envs - held_out_actors):
        return (
            f"must be at most {left}, not {actors_per_task}: source.num_envs is {num_envs}, "
            f"and data.held_out_actors {held_out_actors}"
        )


@constraint("model.heads", "model.width")
def heads_divide_width(heads, width):
    if width % heads:
        return f"must divide model.width ({width}), not be {heads}"


@constraint("model.position", "model.width", "model.heads")
def rotary_has_an_even_head_width(position, width, heads):
    if position == "rotary" and width // heads % 2:
        return f"must not be rotary with heads of width {width // heads}: rotary needs an even one"


@constraint("model.positions", "model.position", "data", "source", "evaluation.episodes", "env")
def position_table_is_large_enough(positions, position, data, source, episodes, env):
    steps = (data.env_steps or source.env_steps) // source.num_envs
    rollout = f"a rollout of {episodes} episodes of {env.episode_length} steps"
    lengths = {
        "window": {"a window of data.context_length": data.context_length},
        "history": {
            rollout: episodes * env.episode_length,
            "a training sequence": steps // data.history_stride,
        },
    }
    for what, length in lengths.get(position, {}).items():
        if length > positions:
            return f"must be at least {length}, the length of {what}, not {positions}"


@constraint("model.reward_token", "model.tokenizer")
def only_separate_tokens_have_an_order(reward_token, tokenizer):
    if reward_token == "before" and tokenizer != "separate":
        return f"must be after with model.tokenizer {tokenizer}: before is for separate only"


@constraint("training.warmup_steps", "training.steps")
def warmup_fits_into_training(warmup_steps, steps):
    if warmup_steps > steps:
        return f"must be at most training.steps ({steps}), not {warmup_steps}"


@constraint("training.final_learning_rate", "training.learning_rate")
def final_learning_rate_is_below_the_peak(final, peak):
    if final > peak:
        return f"must be at most training.learning_rate ({peak}), not {final}"


def _reserved(kwargs: dict) -> str | None:
    """Return a problem if `kwargs` of an environment set what the user must not set, else None."""
    if reserved := sorted(kwargs.keys() & RESERVED):
        return f"must not set {', '.join(reserved)}: the suite sets it"


def _size(factors: tuple[int, ...]) -> str:
    """Return observation factors as text: (9, 9) gives "9 x 9"."""
    return " x ".join(map(str, factors))
