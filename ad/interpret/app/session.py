"""A session of the app: one environment, the model that plays there, and the list of all entries.

An entry is an action, as its number, or a dict: {"do": "ask", "value": -1}. Another session of the
same checkpoint, task and seed that applies the same entries is in the same state. So undo applies
all entries but the last, a link holds the entries, and the picture is drawn of what they made. A
`subject` is an `ad.interpret.analysis.Subject`.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np
import torch

from ad.config.world import make_envs
from ad.data.spec import OBSERVATIONS, field_name
from ad.errors import ConfigError
from ad.interpret import edits
from ad.interpret.components import Ablated, Replacements, parse_components
from ad.interpret.contexts import Contexts
from ad.interpret.edits import EditedHistory, Observation, Reader, Transition
from ad.interpret.hooks import Write, hooked, point_names
from ad.methods.context_policy import ReturnConditionedPolicy
from ad.models.positions import EnvTime
from ad.rollout.rollout import allowed_logits, derive_seeds
from ad.rollout.tasks import asking_for, env_seed, policy_of, selection_of
from envs.rng import derive_key, uniform
from envs.spaces import split_observation

UNTIL = ("step", "episode", "reward")  # where the model stops playing
Entry = int | dict


class Session:
    """A task under an evaluation seed, played by a person and the model in turn.

    Played by the model alone, it is the rollout of the evaluation. `played` holds the environment's
    transitions; `edited`, None without edits, those by which the model decides. `ablated`,
    `steering` and `shift` change the model, not its weights: the components that are replaced, what
    is added to a point, and what is added to the time that it reads.
    """

    def __init__(self, subject, task: np.ndarray, seed: int, entries: Sequence[Entry] = ()):
        self.subject, self.task, self.seed = subject, task, seed
        self.run, self.method, self.model = subject.run, subject.method, subject.model
        self.config = self.run.config
        self.env = make_envs(self.config.env, task[None])
        self.mask = self.env.world.action_mask(self.env.world.tasks)  # [1, A] or None
        env_seeds, self.key = derive_seeds([env_seed(seed, task)])
        observation, _ = self.env.reset(seed=env_seeds)
        self.played = EditedHistory((), self._parts(observation))
        self.edited: EditedHistory | None = None
        self.ablated: dict = {}  # the entry, {} for an intact model
        self.steering: dict = {}
        self.shift = 0  # env steps
        self.marks: dict[str, Contexts] = {}
        self.writes: dict[str, Write] = {}
        self.direction = ""  # that the page shows: no entry, since it changes nothing
        self._readers: dict[bool, Reader] = {}
        self.entries: list[Entry] = []
        for entry in entries:
            self.apply(entry)

    def apply(self, entry: Entry) -> None:
        """Do what an entry says, and add it to the list. Raises ConfigError if it is impossible."""
        if isinstance(entry, int):
            self._act(entry)
        else:
            named = {name: value for name, value in entry.items() if name != "do"}
            getattr(self, f"_{entry['do']}")(**named)
        self.entries.append(entry)

    @property
    def history(self) -> EditedHistory:
        """The history by which the model decides: `edited` if there is one, else `played`."""
        return self.played if self.edited is None else self.edited

    @property
    def is_changed(self) -> bool:
        """Whether the model decides otherwise than by itself and by what happened."""
        return self.edited is not None or bool(self.ablated or self.steering or self.shift)

    def reader(self, changed: bool = True) -> Reader:
        """Return the policy that has read the history, with or without all changes."""
        changed = changed and self.is_changed
        if changed not in self._readers:
            policy = policy_of(self.config, self.method, self.model)(1)
            if self.mask is not None:
                policy.set_action_mask(torch.from_numpy(self.mask))
            history = self.history if changed else self.played
            with self.model_of(changed):
                reader = Reader(policy, history, self.method.within_episodes)
            self._readers[changed] = reader
        return self._readers[changed]

    @contextmanager
    def model_of(self, changed: bool = True) -> Generator[None]:
        """Let the model compute as the entries change it, or as it is, while the block runs."""
        with ExitStack() as stack:
            if changed:
                stack.enter_context(hooked(self.model, write=self.writes))
            if changed and self.shift:
                position, last = self.model.tokenizer.position, self.model.spec.episode_length - 1
                shift = partial(_shift_time, shift=self.shift, last=last)
                stack.enter_context(position.register_forward_pre_hook(shift))
            yield

    @property
    def asked(self) -> float | None:
        """The return asked for in the present episode, None for a model without a return to go."""
        inner = self.reader(False).inner
        return float(inner.asked[0]) if isinstance(inner, ReturnConditionedPolicy) else None

    def contexts(self) -> Contexts:
        """Return the present decision as the model reads it, the time overridden too."""
        found, last = self.reader().contexts(), self.model.spec.episode_length - 1
        return replace(found, window=_shift_time(None, (found.window,), self.shift, last)[0])

    def chosen(self, **choice):
        """Return the subject with another choice of what is looked at."""
        return replace(self.subject, choice=replace(self.subject.choice, **choice))

    def model_action(self) -> int:
        """Return the model's action at the present decision, drawn as in the evaluation."""
        logits = allowed_logits(self.reader().logits, self.mask)
        draw = uniform(self.key, len(self.played))
        return int(selection_of(self.config.evaluation)(logits, draw)[0])

    def play(self, until: str, most: int) -> bool:
        """Let the model play at most `most` steps; return whether it reached the end `until`.

        `until` is one of UNTIL: one step, the end of the episode, or a reward above 0.
        """
        for _ in range(most):
            self.apply(self.model_action())
            last = self.played.transitions[-1]
            if {"step": True, "episode": last.ended, "reward": last.reward > 0}[until]:
                return True
        return False

    def rollout(self, number: int, changed: bool) -> dict:
        """Play from here to the end of the episode in another session, by draws of `number`.

        Returns the actions and the return of the whole episode.
        """
        other = Session(self.subject, self.task, self.seed, self.entries)
        if not changed:
            other.edited, other.ablated, other.steering, other.shift = None, {}, {}, 0
            other._reset()
        other.key = np.array([derive_key(self.seed, "app", number)], np.uint64)
        begin = len(other.played)
        other.play("episode", self.config.env.episode_length)
        steps, first = other.played.transitions, begin - int(self.played.time[-1])
        other.env.close()
        return {
            "actions": [step.action for step in steps[begin:]],
            "return": sum(step.reward for step in steps[first:]),
        }

    def frame(self) -> np.ndarray | None:
        """Draw the present state, uint8 [H, W, 3], or None if the world does not draw."""
        if self.env.world.things:
            return self.env.world.draw()
        time = int(self.played.time[-1])
        transitions = self.played.transitions
        episode = transitions[len(transitions) - time :] if time else [self._imagined()]
        frames = self.run.world.frames(self.task, _fields(episode))
        return None if frames is None else frames[time]

    def _act(self, action: int) -> None:
        num_actions = self.model.spec.num_actions
        if not 0 <= action < num_actions or (self.mask is not None and not self.mask[0, action]):
            raise ConfigError(f"the task has no action {action}")
        before = self.played.observation
        observation, reward, terminated, truncated, info = self.env.step(np.array([action]))
        final, first = info.get("final_obs", observation), self._parts(observation)
        transition = Transition(
            *(before, action, float(reward[0]), self._parts(final)),
            *(bool(terminated[0]), bool(truncated[0])),
        )
        self.played = self.played.after(transition, first)
        seen = transition
        if self.edited is not None:
            if self.edited.observation is not before:
                seen = replace(transition, observation=self.edited.observation)
            self.edited = self.edited.after(seen, first)
        for changed, reader in self._readers.items():
            with self.model_of(changed):
                reader.add(seen if changed else transition, first)

    def _ask(self, value: float) -> None:
        """Ask for the return `value` in the present episode and in those after it."""
        if self.asked is None:
            raise ConfigError("the model is not asked for a return")
        self.config = asking_for(self.config, value)
        self._readers.clear()

    def _change(self, index: int, **values) -> None:
        """Change transition `index`; observations are lists (see `edits.parse_observation`)."""
        parts = self.model.spec.observation
        for name in ("observation", "next_observation"):
            if name in values:
                values[name] = edits.parse_observation(values[name], parts)
        self._edit(partial(edits.change, index=index, **values))

    def _remove(self, index: int) -> None:
        self._edit(partial(edits.remove, indices=[index]))

    def _forget(self, episode: int) -> None:
        self._edit(partial(edits.reset_episode, number=episode))

    def _restore(self) -> None:
        """Let the model decide by what happened, intact, at the true time."""
        self.edited, self.ablated, self.steering, self.shift = None, {}, {}, 0
        self._reset()

    def _put(self, thing: str, x: int, y: int, view: bool = False) -> None:
        """Put a thing into a cell of the real grid, or of the view that the model reads."""
        if view:
            parts = self.model.spec.observation
            return self._edit(partial(edits.put, parts=parts, thing=thing, x=x, y=y))
        world = self.env.world
        if thing not in world.things:
            raise ConfigError(f"no {thing} can be put into the grid of this world")
        try:
            observation = world.put(thing, x, y)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        seen = self._parts(observation)
        self.played = replace(self.played, observation=seen)
        if self.edited is not None:
            self.edited = replace(self.edited, observation=seen)
        self._readers.clear()

    def _ablate(self, components: list[str], kind: str = "zero") -> None:
        """Replace the outputs of heads and MLPs, by zero or by their mean over contexts."""
        for name in components:
            parse_components(name, self.model.transformer)
        self._refuse_branches()
        self.ablated = {"components": components, "kind": kind} if components else {}
        self._reset()

    def _refuse_branches(self) -> None:
        if self.subject.policy.looks_ahead and self.model.tokenizer.streams > 1:
            raise ConfigError("a planner that reads streams of tokens cannot be changed inside")

    def _steer(self, point: str, coefficient: float) -> None:
        """Add a multiple of the difference of the marked contexts B and A at `point`."""
        if point not in point_names(self.model.memory):
            raise ConfigError(f"the model has no point {point}")
        if len(self.marks) < 2:
            raise ConfigError("steering needs two marked situations, A and B")
        self._refuse_branches()
        self.steering = {"point": point, "coefficient": coefficient} if coefficient else {}
        self._reset()

    def _time(self, time: int | None) -> None:
        """Let the model read `time` as that of this decision, and count from there on."""
        if not isinstance(self.model.tokenizer.position, EnvTime):
            raise ConfigError("the model does not read the time in the episode")
        self.shift = 0 if time is None else time - int(self.history.time[-1])
        self._reset()

    def _mark(self, name: str) -> None:
        self.marks[name] = self.reader().contexts()

    def _edit(self, edit: Callable[[EditedHistory], EditedHistory]) -> None:
        self.edited = edit(self.history)
        self._readers.clear()

    def _reset(self) -> None:
        """Make the hooks of the changes, and read the history anew."""
        self.writes = {}
        self._readers.clear()
        if self.ablated:
            parts = [
                parse_components(n, self.model.transformer) for n in self.ablated["components"]
            ]
            components = sum(parts, ())
            table = self._replacements(tuple(dict.fromkeys(one.point for one in components)))
            rows = table.rows(self.ablated["kind"], [None])
            self.writes |= Ablated(self.model, table, [components], rows).writes()
        if self.steering:
            point, marks = self.steering["point"], [self.marks[name] for name in "AB"]
            first, second = (edits.decision_values(self.model, mark, point) for mark in marks)
            vector = self.steering["coefficient"] * (second - first)
            added, before = edits.adding(self.model, vector), self.writes.get(point)
            self.writes[point] = added if before is None else lambda v, p: added(before(v, p), p)

    def _replacements(self, points: tuple[str, ...]) -> Replacements:
        """Return what replaces the values at `points`."""
        if self.ablated["kind"] == "mean":
            return _mean_replacements(self.subject, points)
        return Replacements.of_contexts(self.model, self.reader(False).contexts(), points)

    def _imagined(self) -> Transition:
        """Return a transition from the present state, and restore the state."""
        action = 0 if self.mask is None else int(self.mask[0].argmax())
        before = self.played.observation
        state = self.env.state()
        if state is None:
            return Transition(before, action, 0.0, before)
        observation, reward, *_, info = self.env.step(np.array([action]))
        self.env.restore(state)
        final = self._parts(info.get("final_obs", observation))
        return Transition(before, action, float(reward[0]), final)

    def _parts(self, observation) -> Observation:
        """Return the observation of the environment by part."""
        parts = split_observation(self.env.single_observation_space, observation)
        return {name: values[0].copy() for name, values in parts.items()}


def _shift_time(module, arguments: tuple, shift: int, last: int) -> tuple:
    """Return the arguments of a position embedding with another time, of at most `last`."""
    window, *others = arguments
    return window | {"time": (window["time"] + shift).clamp(0, last)}, *others


@lru_cache(maxsize=16)  # of few points each
def _mean_replacements(subject, points: tuple[str, ...]) -> Replacements:
    """Return replacements with the means over the contexts of a rollout, which takes a while."""
    return Replacements.of_contexts(subject.model, subject.contexts, points)


def _fields(episode: Sequence[Transition]) -> dict[str, np.ndarray]:
    """Return the transitions of an episode as arrays [T, ...] by field."""
    fields = {
        field_name(role, part): np.stack([getattr(step, role)[part] for step in episode])
        for role in OBSERVATIONS
        for part in episode[0].observation
    }
    return fields | {
        "action": np.array([step.action for step in episode]),
        "reward": np.array([step.reward for step in episode], np.float32),
    }
