"""Rules across settings: each says, in half a sentence, what does not go together.

A rule is a function of the values at the dotted paths that it `reads`; its problem is shown at the
first of them. It is skipped while one of its settings has a problem already. Nothing heavy is
imported here: registries are names until a class is asked for.
"""

import operator
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from ad.config.fields import Problem, shown, touches
from ad.config.schema import Experiment
from ad.registry import (
    ENCODERS,
    METHODS,
    POSITIONS,
    SIZE_INDEPENDENT_ENCODERS,
    SOURCES,
    Registry,
)
from envs import world
from envs.tasks import RESERVED, check_all_tasks, make_split, other_split

RULES: list[tuple[tuple[str, ...], Callable[..., str | None]]] = []
FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def reads(*paths: str) -> Callable:
    """Register the decorated function as a rule over the values at `paths`."""

    def register(rule: Callable) -> Callable:
        RULES.append((paths, rule))
        return rule

    return register


def broken_rules(config: Experiment, bad: set[str]) -> Iterator[Problem]:
    """The problems of all rules none of whose settings is in `bad` (paths with a problem)."""
    bad = set(bad)
    for paths, rule in RULES:
        if any(touches(path, other) for path in paths for other in bad):
            continue
        if text := rule(*(operator.attrgetter(path)(config) for path in paths)):
            bad.add(paths[0])
            yield Problem(paths[0], text)


@reads("name")
def name_is_a_folder_name(name):
    if not FOLDER_NAME.fullmatch(name):
        return (
            "must be a plain folder name (letters, digits, '.', '_', '-'; a letter or digit first; "
            f"at most 100), not {shown(name)}"
        )


@reads("root")
def root_exists(root):
    if not Path(root).is_dir():
        return f"must be an existing folder, not {shown(root)}"


@reads("env.kwargs")
def env_kwargs_leave_the_lanes_alone(kwargs):
    if taken := sorted(kwargs.keys() & RESERVED):
        return f"must not set {', '.join(taken)}: the suite does"


@reads("env")
def world_can_be_made(env):
    try:
        check_all_tasks(env.id, env.kwargs, env.tasks)
    except Exception as error:  # a world from elsewhere may raise anything
        return f"makes no world: {' '.join(str(error).split())}"


@reads("split", "env")
def split_is_possible(split, env):
    try:
        make_split(
            env.id, env.kwargs, split.split_seed, split.num_train_tasks, split.held_out, env.tasks
        )
    except ValueError as error:
        return f"is not possible: {error}"


@reads("source.algorithm")
def algorithm_is_registered(algorithm):
    return _unregistered(algorithm, SOURCES)


@reads("source.env_steps", "source.num_envs")
def streams_are_equally_long(env_steps, num_envs):
    if env_steps % num_envs:
        return f"must be a multiple of source.num_envs ({num_envs}), not {env_steps}"


@reads("evaluation.worlds", "env", "split", "model.encoder")
def the_model_can_play_other_worlds(worlds, env, split, encoder):
    home = make_split(
        env.id, env.kwargs, split.split_seed, split.num_train_tasks, split.held_out, env.tasks
    )
    for number, kwargs in enumerate(worlds):
        if kwargs in worlds[:number]:
            return f"must not list {shown(kwargs)} twice"
        if taken := sorted(kwargs.keys() & RESERVED):
            return f"must not set {', '.join(taken)}: the suite does"
        merged = env.kwargs | kwargs
        try:
            other_split(home, merged)
            asked = world(env.id, env.tasks, **merged).observation_factors
        except Exception as error:  # a world from elsewhere may raise anything
            return f"cannot hold {shown(kwargs)}: {' '.join(str(error).split())}"
        known = world(env.id, env.tasks, **env.kwargs).observation_factors
        if asked != known and encoder not in SIZE_INDEPENDENT_ENCODERS:
            return (
                f"cannot hold {shown(kwargs)}: the encoder {encoder} has no vectors for "
                f"{_times(asked)} observations, only for the {_times(known)} it is trained on "
                f"(model.encoder {', '.join(sorted(SIZE_INDEPENDENT_ENCODERS))} has)"
            )


@reads("data.env_steps", "source.env_steps", "source.num_envs")
def so_much_of_a_history_is_there(env_steps, collected, num_envs):
    if env_steps > collected:
        return f"must be at most source.env_steps ({collected}), not {env_steps}"
    if env_steps % num_envs:
        return f"must be a multiple of source.num_envs ({num_envs}), not {env_steps}"


@reads(
    "data.context_length",
    "data.history_stride",
    "data.env_steps",
    "source.env_steps",
    "source.num_envs",
)
def a_kept_history_fills_a_window(context_length, history_stride, env_steps, collected, num_envs):
    stream = (env_steps or collected) // num_envs
    kept = stream // history_stride
    if kept < context_length:
        return (
            f"must be at most {kept}, not {context_length}: that is what is kept of a stream of "
            f"{stream} transitions when every {history_stride}th episode counts"
        )


@reads("data.held_out_actors", "source.num_envs")
def a_stream_is_left_to_train_on(held_out_actors, num_envs):
    if held_out_actors >= num_envs:
        return f"must be below source.num_envs ({num_envs}), not {held_out_actors}"


@reads("data.actors_per_task", "data.held_out_actors", "source.num_envs")
def so_many_streams_are_there(actors_per_task, held_out_actors, num_envs):
    if actors_per_task > (left := num_envs - held_out_actors):
        return (
            f"must be at most {left}, not {actors_per_task}: source.num_envs is {num_envs}, "
            f"and data.held_out_actors {held_out_actors}"
        )


@reads("model.encoder")
def encoder_is_registered(encoder):
    return _unregistered(encoder, ENCODERS)


@reads("model.heads", "model.width")
def heads_divide_the_width(heads, width):
    if width % heads:
        return f"must divide model.width ({width}), not be {heads}"


@reads("model.position")
def position_is_registered(position):
    return _unregistered(position, POSITIONS)


@reads("model.position", "model.width", "model.heads")
def rotary_turns_pairs(position, width, heads):
    if position == "rotary" and width // heads % 2:
        return f"must not be rotary for heads of width {width // heads}: it turns pairs of numbers"


@reads("model.positions", "model.position", "data", "source", "evaluation.episodes", "env")
def the_table_has_every_position(positions, position, data, source, episodes, env):
    stream = (data.env_steps or source.env_steps) // source.num_envs
    rollout = f"a rollout of {episodes} episodes of {env.episode_length} steps"
    lengths = {
        "window": {"a window of data.context_length": data.context_length},
        "history": {
            rollout: episodes * env.episode_length,
            "a kept history": stream // data.history_stride,
        },
    }
    for what, length in lengths.get(position, {}).items():
        if length > positions:
            return f"must be at least {length}, not {positions}: so long is {what}"


@reads("model.reward_token", "model.tokenizer")
def only_a_token_of_its_own_has_an_order(reward_token, tokenizer):
    if reward_token == "before" and tokenizer != "separate":
        return f"must be after with model.tokenizer {tokenizer}: before is for separate only"


@reads("method.name")
def method_is_registered(name):
    return _unregistered(name, METHODS)


@reads("training.warmup_steps", "training.steps")
def warm_up_ends_in_training(warmup_steps, steps):
    if warmup_steps > steps:
        return f"must be at most training.steps ({steps}), not {warmup_steps}"


@reads("training.final_learning_rate", "training.learning_rate")
def learning_rate_falls(final, peak):
    if final > peak:
        return f"must be at most training.learning_rate ({peak}), not {final}"


def _times(factors: tuple[int, ...]) -> str:
    return " x ".join(map(str, factors))


def _unregistered(name: str, registry: Registry) -> str | None:
    if name not in registry:
        return f"is not a known {registry.kind}: {shown(name)}{registry.suggest(name)}"
