"""Constraints between settings that import the components which a configuration names.

They are checked only if nothing else is wrong. Those of LIBRARY_CONSTRAINTS import further
packages, too: they are checked only where a run is to be made.
"""

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Annotated, Any, Literal, get_args, get_origin

from ad.config.checks import Constraints, package_problem
from ad.config.fields import as_yaml, settings_class, validate, value_problem
from ad.config.schema import Experiment
from ad.config.world import configured_split, configured_world, reserved_problem
from ad.registry import ENCODERS, METHODS, SOURCES
from envs.registry import Registry
from envs.spaces import Discrete, Part, observation_parts
from envs.tasks import other_split

COMPONENT_CONSTRAINTS, LIBRARY_CONSTRAINTS = Constraints(), Constraints()
ASKED = "asked_return"  # the argument of a policy that a calibration varies
MOST_PERMUTED = 2**16  # observations: a batch holds a permutation of them for each window


def component_constraint(*paths: str, constraints: Constraints = COMPONENT_CONSTRAINTS) -> Callable:
    """Register the decorated function as a constraint that asks components, of a user perhaps.

    What they raise is a problem of the first of the settings at `paths`.
    """

    def register(function: Callable) -> Callable:
        @constraints.register(*paths)
        def check(*values):
            try:
                return function(*values)
            except Exception as error:  # a user's component may raise anything
                text = " ".join(str(error).split())
                return f"cannot be checked: {type(error).__name__}: {text}"

        return function

    return register


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


@history_constraint("source.algorithm", "env")
def source_can_learn_in_the_world(algorithm, env):
    problem = getattr(SOURCES.load(algorithm), "problem", lambda world, tasks: None)
    world = configured_world(env)
    if text := problem(world, world.all_tasks()):
        return f"cannot be {algorithm} with {env.id}: {algorithm} {text}"


@history_constraint("source.settings", "source.algorithm", "source.num_envs", "env", "split")
def source_can_run_with_its_settings(settings, algorithm, num_envs, env, split):
    problem = getattr(SOURCES.load(algorithm), "settings_problem", None)
    own = _built_settings(SOURCES, algorithm, settings) if problem else None
    if own is None:
        return None
    tasks = configured_split(env, split).train_tasks
    return problem(own, configured_world(env), tasks, num_envs)


@history_constraint("source.settings", "source", "env")
def source_can_read_the_experiments_that_it_names(settings, source, env):
    resolve = getattr(SOURCES.load(source.algorithm), "resolve", None)
    if resolve is None or _built_settings(SOURCES, source.algorithm, settings) is None:
        return None
    try:
        resolve(Experiment(env=env, source=source))
    except ValueError as error:
        return str(error)


@component_constraint("evaluation.worlds", "env", "split", "model", "method.name")
def model_can_be_evaluated_on_worlds(worlds, env, split, model, method):
    if not worlds:
        return None
    trained_split, world = configured_split(env, split), configured_world(env)
    trained = observation_parts(world)
    for number, kwargs in enumerate(worlds):
        if kwargs in worlds[:number]:
            return f"must not list {as_yaml(kwargs)} twice"
        if text := reserved_problem(kwargs):
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
    own = _built_settings(METHODS, name, settings) if method.online else None
    if own is not None:
        return method.settings_problem(own, configured_world(env), env.episode_length)


@component_constraint("method.settings", "method.name", "env", constraints=LIBRARY_CONSTRAINTS)
def online_method_has_its_library(settings, name, env):
    method = METHODS.load(name)
    if method.online:
        own = _built_settings(METHODS, name, settings)
        return method.library_problem(own, configured_world(env))


@component_constraint("training.wandb_project", constraints=LIBRARY_CONSTRAINTS)
def weights_and_biases_are_installed(project):
    return package_problem("wandb") if project else None


@component_constraint("evaluation.policy", "method.name")
def policy_takes_the_arguments(arguments, name):
    known = _policy_arguments(name)
    if unknown := [argument for argument in arguments if argument not in known]:
        takes = ", ".join(known) or "no further arguments"
        return f"must not set {unknown[0]}: the policy of {name} takes {takes}"
    needed = [own.name for own in known.values() if own.default is own.empty]
    if missing := [argument for argument in needed if argument not in arguments]:
        return f"must set {missing[0]}, which the policy of {name} needs"


@component_constraint("evaluation.policy", "method.name")
def arguments_of_the_policy_are_numbers_where_they_must_be(arguments, name):
    for argument, value, annotation in _annotated(arguments, name):
        kinds = {annotation, *get_args(annotation)}
        allowed = value is None if type(None) in kinds else False
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if float in kinds and not allowed and not (is_number and math.isfinite(value)):
            return f"must set {argument} to a number, not {as_yaml(value)}"


@component_constraint("evaluation.policy", "method.name")
def arguments_of_the_policy_are_among_their_choices(arguments, name):
    for argument, value, annotation in _annotated(arguments, name):
        if get_origin(annotation) is Literal and value not in get_args(annotation):
            choices = " or ".join(get_args(annotation))
            return f"must set {argument} to {choices}, not {as_yaml(value)}"


@component_constraint("evaluation.policy", "method.name")
def arguments_of_the_policy_are_within_their_limits(arguments, name):
    for argument, value, annotation in _annotated(arguments, name):
        if get_origin(annotation) is Annotated:
            kind, *limits = get_args(annotation)
            if text := value_problem(value, kind, dict(limits)):
                return f"sets {argument}, which {text}"


@component_constraint("evaluation.calibration", "method.name")
def a_calibration_asks_for_returns(calibration, name):
    if calibration and ASKED not in _policy_arguments(name):
        return f"must be [] with {name}: its policy is not asked for a return"


def _built_settings(registry: Registry, name: str, settings: dict) -> Any | None:
    """Return the `Settings` of a component with plain `settings`, None if some are not valid."""
    group = settings_class(registry, name)
    return None if next(validate(group, settings), None) else group(**settings)


def _policy_arguments(method: str) -> dict[str, inspect.Parameter]:
    """Return the parameters of a method's policy that `evaluation.policy` may set, by name."""
    parameters = inspect.signature(METHODS.load(method).policy).parameters
    return dict(list(parameters.items())[4:])


def _annotated(arguments: dict, method: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield the name, the value and the annotation of each argument for a method's policy."""
    known = _policy_arguments(method)
    for argument, value in arguments.items():
        yield argument, value, known[argument].annotation


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


def _size(part: Part | None) -> str:
    """Return the size of a part of an observation: "9 x 9" for the index of a cell."""
    if part is None:
        return "missing"
    return " x ".join(map(str, part.factors if isinstance(part, Discrete) else part.shape))
