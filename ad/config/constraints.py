"""Constraints between settings, each a function of the values that it reads.

A constraint returns the rest of a sentence about its first setting, or None. It is skipped while
one of its settings already has a problem.
"""

import inspect
import math
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin

from ad.config.fields import Problem, as_yaml, overlaps, settings_class, validate, value_problem
from ad.config.schema import Experiment
from ad.config.world import configured_split, configured_world
from ad.registry import ENCODERS, METHODS, SOURCES
from envs.presets import resolve_length
from envs.spaces import Discrete, Part, observation_parts
from envs.tasks import PUBLISHED_SEEDS, RESERVED, check_all_tasks, other_split

Constraint = tuple[tuple[str, ...], Callable[..., str | None]]
CONSTRAINTS: list[Constraint] = []
ASKED = "asked_return"  # the argument of a policy that a calibration varies
COMPONENT_CONSTRAINTS: list[Constraint] = []  # import the components: only if nothing else is wrong
LIBRARY_CONSTRAINTS: list[Constraint] = []  # import further packages: only where a run is made
MOST_PERMUTED = 2**16  # observations: a batch holds a permutation of them for each window
FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def constraint(*paths: str, constraints: list[Constraint] = CONSTRAINTS) -> Callable:
    """Register the decorated function as a constraint on the values at the dotted `paths`."""

    def register(function: Callable) -> Callable:
        constraints.append((paths, function))
        return function

    return register


component_constraint = partial(constraint, constraints=COMPONENT_CONSTRAINTS)


def history_constraint(*paths: str) -> Callable:
    """Register a component constraint that holds unless the method learns in the worlds.

    An online method reads no histories and has no sequence model.
    """

    def register(function: Callable) -> Callable:
        @component_constraint(*paths, "method.name")
        def check(*values):
            *own, method = values
            return None if METHODS.load(method).online else function(*own)

        return function

    return register


def violations(config: Experiment, bad: set[str]) -> Iterator[Problem]:
    """Yield the problem of each violated constraint; `bad`: paths that already have a problem."""
    bad = set(bad)
    yield from _violated(CONSTRAINTS, config, bad)
    if not bad:
        yield from _violated(COMPONENT_CONSTRAINTS, config, bad)


def library_violations(config: Experiment) -> Iterator[Problem]:
    """Yield what libraries lack or refuse of the valid `config`, which is to be run."""
    return _violated(LIBRARY_CONSTRAINTS, config, set())


def _violated(
    constraints: list[Constraint], config: Experiment, bad: set[str]
) -> Iterator[Problem]:
    """Yield the problem of each violated one of `constraints`, and add its path to `bad`."""
    for paths, check in constraints:
        if any(overlaps(path, other) for path in paths for other in bad):
            continue
        try:
            text = check(*(operator.attrgetter(path)(config) for path in paths))
        except Exception as error:  # a user's component may raise anything
            if constraints is CONSTRAINTS:
                raise
            text = f"cannot be checked: {type(error).__name__}: {' '.join(str(error).split())}"
        if text:
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
        return f"cannot be created: {' '.join(str(error).split()) or type(error).__name__}"


@constraint("env.episode_length", "env.id")
def episode_length_is_that_of_the_preset(episode_length, env_id):
    try:
        resolve_length(env_id, episode_length)
    except ValueError as error:
        return f"cannot be {episode_length}: {error}"


@history_constraint("source.algorithm", "env")
def source_can_learn_in_the_world(algorithm, env):
    problem = getattr(SOURCES.load(algorithm), "problem", lambda world, tasks: None)
    world = configured_world(env)
    if text := problem(world, world.all_tasks()):
        return f"cannot be {algorithm} with {env.id}: {algorithm} {text}"


@history_constraint("source.settings", "source.algorithm", "source.num_envs", "env", "split")
def source_can_run_with_its_settings(settings, algorithm, num_envs, env, split):
    problem = getattr(SOURCES.load(algorithm), "settings_problem", None)
    group = settings_class(SOURCES, algorithm) if problem else None
    if problem is None or next(validate(group, settings), None):
        return None
    tasks = configured_split(env, split).train_tasks
    return problem(group(**settings), configured_world(env), tasks, num_envs)


@history_constraint("source.settings", "source", "env")
def source_can_read_the_experiments_that_it_names(settings, source, env):
    resolve = getattr(SOURCES.load(source.algorithm), "resolve", None)
    if resolve is None or next(validate(settings_class(SOURCES, source.algorithm), settings), None):
        return None
    try:
        resolve(Experiment(env=env, source=source))
    except ValueError as error:
        return str(error)


@constraint("split", "env")
def split_is_possible(split, env):
    try:
        configured_split(env, split)
    except ValueError as error:
        return f"is not possible: {error}"


@constraint("evaluation.worlds", "split.tuning")
def tuning_has_no_other_worlds(worlds, tuning):
    if tuning and worlds:
        return "must be [] with split.tuning: published rows are scored on tasks of other worlds"


@constraint("source.source_seed", "split.tuning")
def tuning_has_its_own_source_agents(source_seed, tuning):
    if tuning and source_seed in PUBLISHED_SEEDS:
        seeds = ", ".join(map(str, PUBLISHED_SEEDS))
        return f"must not be {source_seed} with split.tuning: {seeds} are those of published rows"


@constraint("source.env_steps", "source.num_envs")
def env_steps_are_divisible_by_num_envs(env_steps, num_envs):
    if env_steps % num_envs:
        return f"must be a multiple of source.num_envs ({num_envs}), not {env_steps}"


@constraint("source.env_steps", "source.num_envs", "env.episode_length")
def an_actor_records_an_episode(env_steps, num_envs, episode_length):
    return _shorter_than_an_episode(env_steps, num_envs, episode_length)


@component_constraint("evaluation.worlds", "env", "split", "model", "method.name")
def model_can_be_evaluated_on_worlds(worlds, env, split, model, method):
    if not worlds:
        return None
    trained_split, world = configured_split(env, split), configured_world(env)
    trained = observation_parts(world)
    for number, kwargs in enumerate(worlds):
        if kwargs in worlds[:number]:
            return f"must not list {as_yaml(kwargs)} twice"
        if text := _reserved(kwargs):
            return text
        merged = env.kwargs | kwargs
        try:
            other_split(trained_split, merged)
            other_world = configured_world(replace(env, kwargs=merged))
            evaluated = observation_parts(other_world)
        except Exception as error:  # another package's environment may raise anything
            return f"must not list {as_yaml(kwargs)}: {' '.join(str(error).split())}"
        if other_world.single_action_space != world.single_action_space:
            return f"must not list {as_yaml(kwargs)}: it has other actions than training"
        for name in {**trained, **evaluated}:
            part, other = trained.get(name), evaluated.get(name)
            if part == other:
                continue
            if not METHODS.load(method).any_size:
                return (
                    f"must not list {as_yaml(kwargs)}: {method} is for the {_size(part)} "
                    f"observations of training, not {_size(other)}"
                )
            encoder = model.encoder_of(name)
            if None in (part, other) or not ENCODERS.load(encoder).any_size:
                fitting = ", ".join(known for known in ENCODERS if ENCODERS.load(known).any_size)
                return (
                    f"must not list {as_yaml(kwargs)}: model.encoder {encoder} is for the "
                    f"{_size(part)} observations of training, not for {_size(other)} "
                    f"({fitting} is for any size)"
                )


@constraint("data.env_steps", "source.env_steps", "source.num_envs", "env.episode_length")
def history_has_env_steps(env_steps, collected, num_envs, episode_length):
    if env_steps > collected:
        return f"must be at most source.env_steps ({collected}), not {env_steps}"
    if env_steps % num_envs:
        return f"must be a multiple of source.num_envs ({num_envs}), not {env_steps}"
    if env_steps:
        return _shorter_than_an_episode(env_steps, num_envs, episode_length)


@constraint("data.history_stride", "data.env_steps", "source.env_steps", "source.num_envs")
def stride_leaves_training_sequences(stride, env_steps, collected, num_envs):
    steps = (env_steps or collected) // num_envs
    if stride > steps:
        return (
            f"must be at most {steps}, the transitions of an actor (source.env_steps / "
            f"source.num_envs), not {stride}"
        )


@constraint("data.windows_to_end", "data.windows_from_start")
def windows_begin_or_end(to_end, from_start):
    if to_end + from_start > 1:
        return f"must be at most 1 - data.windows_from_start ({from_start:g}), not {to_end:g}"


@component_constraint("data.permute", "env", "method.name")
def windows_can_be_permuted(permute, env, method):
    if permute == "none":
        return None
    if METHODS.load(method).derived:
        return f"must be none with {method}: what it computes itself cannot be permuted alike"
    part = observation_parts(configured_world(env)).get("")
    is_index = isinstance(part, Discrete) and part.n <= MOST_PERMUTED
    if permute != "actions" and not is_index:
        return (
            f"must be none or actions with {env.id}: its observation is not one index below "
            f"{MOST_PERMUTED}"
        )


@history_constraint("model.encoders", "env")
def encoders_fit_parts_of_the_observation(encoders, env):
    parts = observation_parts(configured_world(env))
    for name, encoder in encoders.items():
        if not isinstance(encoder, str):
            return f"must name the encoder of {name}, not {as_yaml(encoder)}"
        if name not in parts:
            known = ", ".join(filter(None, parts)) or "no parts with names"
            return f"cannot have one for the part {name}: the observation has {known}"
        if text := _encoder_problem(encoder, name, parts[name]):
            return text


@history_constraint("model.encoder", "model.encoders", "env")
def encoder_fits_the_other_parts(encoder, encoders, env):
    for name, part in observation_parts(configured_world(env)).items():
        if name not in encoders and (text := _encoder_problem(encoder, name, part)):
            return text


@component_constraint("method.name", "env")
def method_can_learn_from_the_world(name, env):
    if text := METHODS.load(name).problem(configured_world(env)):
        return f"cannot be {name} with {env.id}: {name} {text}"


@component_constraint("method.settings", "method.name", "env")
def online_method_can_learn_with_its_settings(settings, name, env):
    method = METHODS.load(name)
    group = settings_class(METHODS, name) if method.online else None
    if group is None or next(validate(group, settings), None):
        return None
    return method.settings_problem(group(**settings), configured_world(env), env.episode_length)


@constraint("method.settings", "method.name", "env", constraints=LIBRARY_CONSTRAINTS)
def online_method_has_its_library(settings, name, env):
    method = METHODS.load(name)
    if method.online:
        own = settings_class(METHODS, name)(**settings)
        return method.library_problem(own, configured_world(env))


@component_constraint("evaluation.policy", "method.name")
def policy_takes_the_arguments(arguments, name):
    further = list(inspect.signature(METHODS.load(name).policy).parameters.values())[4:]
    known = [parameter.name for parameter in further]
    if unknown := [argument for argument in arguments if argument not in known]:
        takes = ", ".join(known) or "no further arguments"
        return f"must not set {unknown[0]}: the policy of {name} takes {takes}"
    needed = [parameter.name for parameter in further if parameter.default is parameter.empty]
    if missing := [argument for argument in needed if argument not in arguments]:
        return f"must set {missing[0]}, which the policy of {name} needs"


@component_constraint("evaluation.policy", "method.name")
def arguments_of_the_policy_are_numbers_where_they_must_be(arguments, name):
    parameters = inspect.signature(METHODS.load(name).policy).parameters
    for argument, value in arguments.items():
        kinds = {parameters[argument].annotation, *get_args(parameters[argument].annotation)}
        allowed = value is None if type(None) in kinds else False
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if float in kinds and not allowed and not (is_number and math.isfinite(value)):
            return f"must set {argument} to a number, not {as_yaml(value)}"


@component_constraint("evaluation.policy", "method.name")
def arguments_of_the_policy_are_among_their_choices(arguments, name):
    parameters = inspect.signature(METHODS.load(name).policy).parameters
    for argument, value in arguments.items():
        annotation = parameters[argument].annotation
        if get_origin(annotation) is Literal and value not in get_args(annotation):
            choices = " or ".join(get_args(annotation))
            return f"must set {argument} to {choices}, not {as_yaml(value)}"


@component_constraint("evaluation.policy", "method.name")
def arguments_of_the_policy_are_within_their_limits(arguments, name):
    parameters = inspect.signature(METHODS.load(name).policy).parameters
    for argument, value in arguments.items():
        annotation = parameters[argument].annotation
        if get_origin(annotation) is Annotated:
            kind, *limits = get_args(annotation)
            if text := value_problem(value, kind, dict(limits)):
                return f"sets {argument}, which {text}"


@component_constraint("evaluation.calibration", "method.name")
def a_calibration_asks_for_returns(calibration, name):
    if calibration and ASKED not in inspect.signature(METHODS.load(name).policy).parameters:
        return f"must be [] with {name}: its policy is not asked for a return"


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


@constraint("training.schedule_steps", "training.steps")
def schedule_is_as_long_as_the_training(schedule_steps, steps):
    if 0 < schedule_steps < steps:
        return f"must be 0 or at least training.steps ({steps}), not {schedule_steps}"


@constraint("training.final_learning_rate", "training.learning_rate")
def final_learning_rate_is_below_the_peak(final, peak):
    if final > peak:
        return f"must be at most training.learning_rate ({peak}), not {final}"


def _shorter_than_an_episode(env_steps: int, num_envs: int, episode_length: int) -> str | None:
    """Return a problem if `env_steps` of all actors leave each less than an episode, else None."""
    if env_steps < num_envs * episode_length:
        return (
            f"must be at least {num_envs * episode_length}, an episode of env.episode_length "
            f"({episode_length}) for each of source.num_envs ({num_envs}) actors, not {env_steps}"
        )


def _encoder_problem(encoder: str, name: str, part: Part) -> str | None:
    """Return why `encoder` cannot encode the part called `name`, None if it can."""
    try:
        if ENCODERS.load(encoder).supports(part):
            return None
    except ValueError as error:
        return f"cannot be used: {error}"
    fitting = [known for known in ENCODERS if ENCODERS.load(known).supports(part)]
    what = f"the part {name} of the observation" if name else "the observation"
    hint = f", as in model.encoders {{{name}: {fitting[0]}}}" if name else ""
    names = ", ".join(fitting)
    return f"must not be {encoder}: {what} is {part}, which {names} can encode{hint}"


def _reserved(kwargs: dict) -> str | None:
    """Return a problem if `kwargs` of an environment set what the user must not set, else None."""
    if reserved := sorted(kwargs.keys() & RESERVED):
        return f"must not set {', '.join(reserved)}: the suite sets it"


def _size(part: Part | None) -> str:
    """Return the size of a part of an observation: "9 x 9" for the index of a cell."""
    if part is None:
        return "missing"
    return " x ".join(map(str, part.factors if isinstance(part, Discrete) else part.shape))
