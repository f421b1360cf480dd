"""Policies of Stable-Baselines3 from plain settings, and the checkpoints that hold them.

A checkpoint is a zip file with `settings.json` (`SB3Settings` in plain types) and `policy.pth`, the
policy's parameters as Stable-Baselines3 writes them: `model.set_parameters(path,
exact_match=False)` of its own algorithms reads them too. No file is unpickled, and equal policies
give equal bytes.
"""

import importlib
import inspect
import io
import json
import zipfile
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common import torch_layers
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv

from ad.sources.sb3.extractors import OneHotCells
from ad.sources.sb3.settings import ALGORITHMS, LINEAR, SCHEDULES, SB3Settings
from envs.registry import did_you_mean
from envs.spaces import Discrete, Part


def _classes(module: ModuleType, base: type) -> dict[str, type]:
    """Return the subclasses of `base` in `module` by name."""
    classes = {name: value for name, value in vars(module).items() if isinstance(value, type)}
    return {name: value for name, value in classes.items() if issubclass(value, base)}


SETTINGS, PARAMETERS = "settings.json", "policy.pth"
CLASSES = {  # options of a policy that name a class
    "activation_fn": _classes(torch.nn, torch.nn.Module),
    "features_extractor_class": {
        "OneHotCells": OneHotCells,
        **_classes(torch_layers, torch_layers.BaseFeaturesExtractor),
    },
}
RESERVED = ("policy", "env", "seed", "device", "verbose", "tensorboard_log", "_init_setup_model")


class Spaces(VecEnv):
    """N environments that have nothing but the spaces of one agent.

    `parts` are the parts of an observation by name, "" for an undivided one.
    """

    def __init__(self, num_envs: int, parts: dict[str, Part], num_actions: int):
        each = {name: _space(part) for name, part in parts.items()}
        self.parts = parts
        super().__init__(
            num_envs, each.get("") or spaces.Dict(each), spaces.Discrete(int(num_actions))
        )

    def observation(self, parts: dict[str, np.ndarray]) -> np.ndarray | dict[str, np.ndarray]:
        """Return the parts of observations, arrays [N, ...] by name, as these spaces have them."""
        cast = {
            name: parts[name].astype(part.window_dtype).reshape(-1, *_shape(part))
            for name, part in self.parts.items()
        }
        return cast.get("", cast)

    def close(self) -> None:
        """Do nothing."""

    def get_attr(self, attr_name, indices=None):
        """Return None for each environment: the library reads `render_mode` alone."""
        return [None] * self.num_envs

    def _unused(self, *arguments, **named):
        raise NotImplementedError

    reset = step_async = step_wait = set_attr = env_method = _unused

    def env_is_wrapped(self, wrapper_class, indices=None):
        """Return that no environment has a wrapper."""
        return [False] * self.num_envs


def _shape(part: Part) -> tuple[int, ...]:
    return () if isinstance(part, Discrete) else part.shape or (1,)


def _space(part: Part) -> spaces.Space:
    if isinstance(part, Discrete):
        return spaces.Discrete(part.n)
    low, high = (
        infinite if bound is None else bound
        for bound, infinite in ((part.low, -np.inf), (part.high, np.inf))
    )
    return spaces.Box(low, high, _shape(part), np.dtype(part.window_dtype).type)


def make_algorithm(settings: SB3Settings, env: Spaces, seed: int | None = None) -> BaseAlgorithm:
    """Return a new agent for the spaces of `env`. Raises ValueError if the settings do not fit."""
    algorithm = _algorithm(settings)
    known = [name for name in inspect.signature(algorithm).parameters if name not in RESERVED]
    for name in settings.arguments:
        if name not in known:
            hint = did_you_mean(name, known) or f" (known: {', '.join(known)})"
            raise ValueError(f"{settings.algorithm} takes no argument {name}{hint}")
    policy = _policy_name(settings, env)
    try:
        return algorithm(policy, env, seed=seed, device="cpu", **_arguments(settings))
    except Exception as error:  # a library may raise anything for its arguments
        raise ValueError(_words(error)) from error


def make_policy(settings: SB3Settings, env: Spaces):
    """Return an untrained policy for the spaces of `env`, without the rest of the algorithm."""
    algorithm, wrapped = _algorithm(settings), BaseAlgorithm._wrap_env(env, monitor_wrapper=False)
    policy_class = algorithm.policy_aliases[_policy_name(settings, env)]
    options = _arguments(settings).get("policy_kwargs") or {}
    return policy_class(wrapped.observation_space, env.action_space, lambda _: 0.0, **options)


def _algorithm(settings: SB3Settings) -> type[BaseAlgorithm]:
    return getattr(importlib.import_module(ALGORITHMS[settings.algorithm]), settings.algorithm)


def _policy_name(settings: SB3Settings, env: Spaces) -> str:
    """Return the name of the policy class. Raises ValueError if the algorithm has none of it."""
    known = _algorithm(settings).policy_aliases
    if settings.policy in known:
        return settings.policy
    if settings.policy != "auto":
        raise ValueError(
            f"{settings.algorithm} has no policy {settings.policy} (known: auto, "
            f"{', '.join(known)})"
        )
    is_divided = isinstance(env.observation_space, spaces.Dict)
    prefix = "MultiInput" if is_divided else "Mlp"
    return next(name for name in known if name.startswith(prefix))


def _arguments(settings: SB3Settings) -> dict:
    """Return the keyword arguments of the algorithm: plain values, schedules and classes."""
    arguments = dict(settings.arguments)
    for name in SCHEDULES & arguments.keys():
        if isinstance(arguments[name], str):
            try:
                start = float(arguments[name].removeprefix(LINEAR))
            except ValueError:
                text = f"{name} must be a number or {LINEAR}<number>, not {arguments[name]}"
                raise ValueError(text) from None
            arguments[name] = LinearSchedule(start, 0.0, 1.0)
    if isinstance(arguments.get("train_freq"), list):
        arguments["train_freq"] = tuple(arguments["train_freq"])
    options = dict(arguments.get("policy_kwargs") or {})
    for option, classes in CLASSES.items():
        if isinstance(name := options.get(option), str):
            if name not in classes:
                hint = did_you_mean(name, classes) or ""
                raise ValueError(f"{option} cannot be {name}{hint}")
            options[option] = classes[name]
    return arguments | ({"policy_kwargs": options} if options else {})


def checkpoint(settings: SB3Settings, policy) -> bytes:
    """Return the bytes of a checkpoint."""
    parameters, buffer = io.BytesIO(), io.BytesIO()
    torch.save(policy.state_dict(), parameters)
    plain = {name: getattr(settings, name) for name in ("algorithm", "policy", "arguments")}
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in (
            (SETTINGS, json.dumps(plain, sort_keys=True).encode()),
            (PARAMETERS, parameters.getvalue()),
        ):
            file.writestr(zipfile.ZipInfo(name), content)  # dated 1980
    return buffer.getvalue()


def load_policy(path: Path, env: Spaces):
    """Return the policy of a checkpoint, for the spaces of `env`.

    Raises ValueError if the file cannot be read, or its policy has other spaces.
    """
    try:
        with zipfile.ZipFile(path) as file:
            settings = SB3Settings(**json.loads(file.read(SETTINGS)))
            content = io.BytesIO(file.read(PARAMETERS))
        parameters = torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:  # zipfile, json and torch raise many kinds for a damaged file
        raise ValueError(f"{path} is not a checkpoint of this suite: {_words(error)}") from error
    generators = torch.get_rng_state()
    try:
        policy = make_policy(settings, env)
        policy.load_state_dict(parameters)
    except Exception as error:
        raise ValueError(
            f"{path} does not fit the world, whose observations are {env.observation_space} and "
            f"whose actions are {env.action_space}"
        ) from error
    finally:
        torch.set_rng_state(generators)
    policy.set_training_mode(False)
    return policy


class Player:
    """A policy that plays in N environments, with the memory that a recurrent one has of each."""

    def __init__(self, policy, env: Spaces, num_envs: int):
        self.policy, self.env = policy, env
        self.memory: np.ndarray | None = None  # of a recurrent policy, float32 [2, layers, N, C]
        if hasattr(policy, "lstm_actor"):
            lstm = policy.lstm_actor
            self.memory = np.zeros((2, lstm.num_layers, num_envs, lstm.hidden_size), np.float32)

    def __call__(self, observation: dict[str, np.ndarray], starts: np.ndarray) -> np.ndarray:
        """Return the logits of the actions, float64 [N, A].

        `observation` are the parts, arrays [N, ...], `starts` bool [N]: episodes that begin. The
        logits of a value-based policy are its action values.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # bits depend on the number of threads
        try:
            with torch.no_grad():
                return self._logits(self.env.observation(observation), starts).double().numpy()
        finally:
            torch.set_num_threads(threads)

    def _logits(self, observation, starts: np.ndarray) -> torch.Tensor:
        policy = self.policy
        batch, _ = policy.obs_to_tensor(observation)
        if hasattr(policy, "q_net"):
            return policy.q_net(batch)
        if hasattr(policy, "quantile_net"):
            return policy.quantile_net(batch).mean(1)
        if self.memory is None:
            return policy.get_distribution(batch).distribution.logits
        states = tuple(torch.from_numpy(self.memory))
        begins = torch.from_numpy(starts.astype(np.float32))
        distribution, states = policy.get_distribution(batch, states, begins)
        self.memory = torch.stack(states).numpy()
        return distribution.distribution.logits


def make_players(paths: dict, parts: dict[str, Part], counts) -> dict:
    """Return what makes the `Player` of each (task k, entry) in `paths`, by its `num_envs`.

    counts: the number of actions of each task. Raises ValueError if a checkpoint does not fit.
    """
    loaded, makers = {}, {}
    for (k, e), path in paths.items():
        count = int(counts[k])
        env = Spaces(1, parts, count)
        if (path, count) not in loaded:
            loaded[path, count] = load_policy(path, env)
        makers[k, e] = partial(Player, loaded[path, count], env)
    return makers


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
