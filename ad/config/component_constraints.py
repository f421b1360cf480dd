"""Constraints between settings that import the components which a configuration names.

They are checked only where the sections that they read have no other problem.
"""

from collections.abc import Callable, Iterator
from dataclasses import fields

from ad.config.checks import Constraints
from ad.config.fields import Problem, as_yaml, settings_class, validate, value_problem
from ad.config.schema import EnvConfig, Experiment
from ad.config.world import configured_split, configured_world, evaluated_env, reserved_problem
from ad.errors import SettingError
from ad.registry import ENCODERS, MEMORIES, METHODS, SOURCES
from envs.changes import rate_problem
from envs.oracle import TaskOracle
from envs.spaces import Discrete, Part, observation_parts
from envs.tasks import other_split
from envs.world import World

MOST_PERMUTED = 2**16  # observations: a batch holds a permutation of them for each window

Check = Callable[..., Iterator[Problem] | None]


class ComponentConstraints(Constraints):
    """Checks `check(config, world)` of components, which a user may have written.

    A check yields problems or raises SettingError. What else it raises is a problem, too.
    """

    def _problems(self, check: Check, paths: tuple[str, ...], config: Experiment) -> list[Problem]:
        try:
            return list(check(config, configured_world(config.env)) or ())
        except SettingError as error:
            return [Problem(error.path, error.text)]
        except Exception as error:
            text = " ".join(str(error).split())
            return [Problem(paths[0], f"cannot be checked: {type(error).__name__}: {text}")]


COMPONENT_CONSTRAINTS = ComponentConstraints()
constraint = COMPONENT_CONSTRAINTS.register


@constraint("method", "env")
def method_can_learn(config, world):
    _method(config).check(config, world)


@constraint("source", "env", "split", "method.name")
def source_can_run(config, world):
    if METHODS.load(config.method.name).reads_histories:
        SOURCES.load(config.source.algorithm).check(config, world)


@constraint("env", "split", "source.algorithm", "method.name", "evaluation")
def tasks_can_change(config, world):
    """Check `env.change`, which `evaluation.worlds` may replace."""
    rates = [world.get("change", 0) for world in config.evaluation.worlds]
    if not any([config.env.change, *rates]):
        return
    split, method = configured_split(config.env, config.split), METHODS.load(config.method.name)
    text, played = "cannot let tasks change", config.evaluation.num_train_tasks
    if not isinstance(world, World) or world.action_mask(world.all_tasks()) is not None:
        text += f" with {config.env.id}: it needs a world of the suite whose tasks have all actions"
    elif min(len(split.train_tasks), len(split.held_out_tasks), played or 2) < 2:
        text += ": there must be two train tasks and two held-out tasks to change between"
    elif config.evaluation.env_steps:
        text += " with evaluation.env_steps: all rollouts must have as many episodes"
    elif not config.env.change:
        return
    elif config.env.change >= config.evaluation.episodes:
        text += f": the evaluation has {config.evaluation.episodes} episodes"
    elif config.evaluation.calibration:
        text += " with evaluation.calibration, whose tasks do not change"
    elif config.evaluation.asked_returns:
        text += " with evaluation.asked_returns, whose tasks do not change"
    elif "optimal_action" in method.fields:
        text += f" with {config.method.name}, which learns the optimal actions of a task that stays"
    elif method.reads_histories or not method.has_model:
        if SOURCES.load(config.source.algorithm).privileged_info == "nothing":
            return
        text += f" with {config.source.algorithm}, whose agents may know more than they observe"
    else:
        return
    yield Problem("env.change" if config.env.change else "evaluation.worlds", text)


@constraint("evaluation", "env")
def rollouts_are_as_long_as_a_life(config, world):
    if text := _life_problem(config, config.env, world):
        yield Problem("env.change" if config.env.change else "evaluation.episodes", text)


@constraint("env", "source", "method.name")
def histories_end_with_a_life(config, world):
    steps, reads = config.source.env_steps, METHODS.load(config.method.name).reads_histories
    if reads and world.life and steps > (most := world.life * config.source.num_envs):
        text = f"must be at most {most}, env.kwargs.pulls for each of source.num_envs actors: after"
        yield Problem("source.env_steps", f"{text} them means stay, not {steps}")


@constraint("evaluation.temperature_known", "method")
def context_tells_which_temperature(config, world):
    if config.evaluation.temperature_known is not None and not _method(config).shows_rewards:
        text = f"must be null with {config.method.name}: its context holds no past rewards"
        yield Problem("evaluation.temperature_known", text)


@constraint("evaluation.policy", "method.name")
def settings_of_the_policy_are_valid(config, world):
    group = settings_class(METHODS, config.method.name, "PolicySettings")
    yield from validate(group, config.evaluation.policy, "evaluation.policy")


@constraint("evaluation", "method.name")
def policy_of_a_calibration_is_return_conditioned(config, world):
    group = METHODS.load(config.method.name).PolicySettings
    text = f"must be [] with {config.method.name}: its policy is not conditioned on a return"
    for name in ("calibration", "asked_returns"):
        is_asked = bool(getattr(config.evaluation, name))
        if is_asked and "asked_return" not in {one.name for one in fields(group)}:
            yield Problem(f"evaluation.{name}", text)
    if config.evaluation.calibration and config.evaluation.env_steps:
        text = "must be [] with evaluation.env_steps: each asked return is played for `episodes`"
        yield Problem("evaluation.calibration", text)


@constraint("data.permute", "env", "method.name")
def windows_can_be_permuted(config, world):
    permute, name = config.data.permute, config.method.name
    if permute == "none":
        return
    if METHODS.load(name).derived:
        text = f"must be none with {name}: what it computes itself cannot be permuted alike"
        yield Problem("data.permute", text)
        return
    part = observation_parts(world).get("")
    if permute != "actions" and not (isinstance(part, Discrete) and part.n <= MOST_PERMUTED):
        text = f"its observation is not one index below {MOST_PERMUTED}"
        yield Problem("data.permute", f"must be none or actions with {config.env.id}: {text}")


@constraint("model.encoders", "env")
def encoders_fit_parts_of_the_observation(config, world):
    parts = observation_parts(world)
    for name, encoder in config.model.encoders.items():
        if not isinstance(encoder, str):
            text = f"must name the encoder of {name}, not {as_yaml(encoder)}"
            raise SettingError("model.encoders", text)
        if name not in parts:
            names = ", ".join(filter(None, parts)) or "no parts with names"
            text = f"cannot have one for the part {name}: the observation has {names}"
            raise SettingError("model.encoders", text)
        _check_encoder("model.encoders", encoder, name, parts[name])


@constraint("model.encoder", "model.encoders", "env")
def encoder_fits_the_other_parts(config, world):
    for name, part in observation_parts(world).items():
        if name not in config.model.encoders:
            _check_encoder("model.encoder", config.model.encoder, name, part)


@constraint("model", "training")
def memory_can_be_built(config, world):
    MEMORIES.load(config.model.memory).check(config)


@constraint("training.segments", "method")
def method_reads_segments(config, world):
    if config.training.segments > 1 and not _method(config).reads_segments:
        text = f"must stay 1 with {config.method.name} and its settings, whose model cannot carry a"
        text += " state from one segment to the next: a memory that needs more cannot be used"
        yield Problem("training.segments", text)


@constraint("training.segments", "training.batch_size", "training.micro_batches", "method")
def segments_fill_a_batch(config, world):
    own, reads = config.training, METHODS.load(config.method.name).reads_histories
    most, rest = divmod(own.batch_size, own.segments)
    if reads and rest:  # a learner of its own has other batches
        text = f"must divide training.batch_size ({own.batch_size}), not be {own.segments}"
        yield Problem("training.segments", text)
    elif reads and own.micro_batches > most:
        divided = " / training.segments" if own.segments > 1 else ""
        text = f"must be at most training.batch_size{divided} ({most}), not {own.micro_batches}"
        yield Problem("training.micro_batches", text)


@constraint("model.memory", "method")
def method_reads_retrieved_episodes(config, world):
    method = _method(config)
    if not MEMORIES.load(config.model.memory).retrieved:
        return
    text = f"must not be {config.model.memory} with {config.method.name} and its settings, whose"
    if not (method.reads_histories and method.reads_segments):
        yield Problem("model.memory", f"{text} windows are read without earlier episodes")
    elif "reward" in method.derived:  # by which a rollout would choose episodes
        yield Problem("model.memory", f"{text} field reward is not the reward")


@constraint("evaluation.worlds", "env", "split", "model", "method.name")
def model_can_be_evaluated_on_worlds(config, world):
    worlds = config.evaluation.worlds
    for number, kwargs in enumerate(worlds):
        where = f"must not list {as_yaml(kwargs)}"
        if kwargs in worlds[:number]:
            raise SettingError("evaluation.worlds", f"{where} twice")
        if text := reserved_problem(kwargs):
            raise SettingError("evaluation.worlds", text)
        env = evaluated_env(config.env, kwargs)
        try:
            if env == config.env:
                raise ValueError("it changes no setting of env")
            if text := value_problem(env.change, float, {}) or rate_problem(env.change):
                raise ValueError(f"change {text}")
            if env.change >= config.evaluation.episodes and "change" in kwargs:
                raise ValueError(f"the evaluation has {config.evaluation.episodes} episodes")
            other = other_split(configured_split(config.env, config.split), env.kwargs)
            if env.change and min(len(other.train_tasks), len(other.held_out_tasks)) < 2:
                raise ValueError("its tasks cannot change: it has one train or held-out task")
            own = configured_world(env)
            if text := _life_problem(config, env, own):
                raise ValueError(text)
            _check_evaluated_world(config, world, own)
        except Exception as error:  # another package's environment may raise anything
            text = f"{where}: {' '.join(str(error).split())}"
            raise SettingError("evaluation.worlds", text) from error


def _life_problem(config: Experiment, env: EnvConfig, world: TaskOracle) -> str | None:
    """Return what does not fit a world whose facts about a task are means over a `life`."""
    own, life = config.evaluation, world.life
    steps = own.env_steps or own.episodes * env.episode_length
    if life and env.change:
        return "cannot let tasks change that drift"
    if life not in (None, steps):
        return (
            f"has rollouts of {steps} env steps, and the facts about its tasks are means over "
            f"{life} (env.kwargs.pulls of a bandit that drifts)"
        )


def _method(config: Experiment):
    """Return the method of `config`, built with its settings."""
    method = METHODS.load(config.method.name)
    return method(method.Settings(**config.method.settings))


def _check_evaluated_world(config: Experiment, world, other) -> None:
    """Raise ValueError if a model of `world` cannot be evaluated on the world `other`."""
    if other.single_action_space != world.single_action_space:
        raise ValueError("it has other actions than training")
    if other.numbering != world.numbering:
        raise ValueError("its numbers stand for other observations than those of training")
    trained, evaluated = observation_parts(world), observation_parts(other)
    for name in {**trained, **evaluated}:
        part, changed = trained.get(name), evaluated.get(name)
        if part == changed:
            continue
        if not METHODS.load(config.method.name).any_size:
            raise ValueError(
                f"{config.method.name} is for the {_size(part)} observations of training, "
                f"not {_size(changed)}"
            )
        encoder = config.model.encoder_of(name)
        if None in (part, changed) or not ENCODERS.load(encoder).any_size:
            fitting = ", ".join(one for one in ENCODERS if ENCODERS.load(one).any_size)
            raise ValueError(
                f"model.encoder {encoder} is for the {_size(part)} observations of training, "
                f"not for {_size(changed)} ({fitting} is for any size)"
            )


def _check_encoder(setting: str, encoder: str, name: str, part: Part) -> None:
    """Raise SettingError about `setting` unless `encoder` can encode the part called `name`."""
    try:
        if ENCODERS.load(encoder).supports(part):
            return
    except ValueError as error:
        raise SettingError(setting, f"cannot be used: {error}") from error
    fitting = [one for one in ENCODERS if ENCODERS.load(one).supports(part)]
    what = f"the part {name} of the observation" if name else "the observation"
    hint = f", as in model.encoders {{{name}: {fitting[0]}}}" if name else ""
    names = ", ".join(fitting)
    text = f"must not be {encoder}: {what} is {part}, which {names} can encode{hint}"
    raise SettingError(setting, text)


def _size(part: Part | None) -> str:
    """Return the size of a part of an observation: "9 x 9" for the index of a cell."""
    if part is None:
        return "missing"
    return " x ".join(map(str, part.factors if isinstance(part, Discrete) else part.shape))
