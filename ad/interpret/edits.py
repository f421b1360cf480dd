"""Edits of a history: what a model predicts if its past had been another one.

An EditedHistory holds the transitions of one environment and the observation after them. An edit
changes or removes transitions and returns another EditedHistory. A policy reads it as it reads an
environment, so that padding, steps, the time in an episode, the return to go and dropped decisions
follow from the edited transitions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ad.errors import ConfigError
from ad.interpret.contexts import Contexts, context_policy, number_observations
from ad.interpret.hooks import Point, Write, hooked
from ad.interpret.labeled import LabeledArray, Results
from ad.methods.policy import Policy, observation_tensors
from ad.models.sequence_model import SequenceModel
from envs.minigrid.encoding import COLORS, OBJECTS, cells_in, encoded_cells, shows_cells
from envs.spaces import Discrete, Part

THINGS = {  # object and color of what is put into a cell
    "wall": ("wall", "grey"),
    "ball": ("ball", "blue"),
    "goal": ("goal", "green"),
    "nothing": ("empty", "red"),
}

Observation = Mapping[str, np.ndarray]  # by part, "" for an undivided one


@dataclass(frozen=True)
class Transition:
    """A transition of one environment, the last of its episode if it terminated or truncated."""

    observation: Observation
    action: int
    reward: float
    next_observation: Observation
    terminated: bool = False
    truncated: bool = False

    @property
    def ended(self) -> bool:
        """Whether the episode ended with this transition."""
        return self.terminated or self.truncated


@dataclass(frozen=True)
class EditedHistory:
    """M transitions from the beginning of an episode on, and the next decision's `observation`.

    The time in an episode is counted from the transitions.
    """

    transitions: tuple[Transition, ...]
    observation: Observation

    def __len__(self) -> int:
        return len(self.transitions)

    @property
    def episode(self) -> np.ndarray:
        """The number of the episode of each transition and of the decision, int64 [M + 1]."""
        ended = [transition.ended for transition in self.transitions]
        return np.append(0, np.cumsum(np.array(ended, np.int64)))

    @property
    def time(self) -> np.ndarray:
        """The env steps of its episode before each transition and the decision, int64 [M + 1]."""
        episode = self.episode
        return np.arange(len(episode)) - np.searchsorted(episode, episode)

    def after(self, transition: Transition, observation: Observation) -> "EditedHistory":
        """Return the history with one more transition and the `observation` after it."""
        return EditedHistory((*self.transitions, transition), observation)


def change(
    history: EditedHistory,
    index: int,
    action: int | None = None,
    reward: float | None = None,
    observation: Observation | None = None,
    next_observation: Observation | None = None,
) -> EditedHistory:
    """Return the history with other values in transition `index`.

    Within an episode, a transition's next observation is the observation of the following one: both
    change together. Raises ConfigError if there is no such transition.
    """
    transitions = _transitions(history, [index])
    values = {"action": action, "reward": reward, "observation": observation}
    values = {name: value for name, value in values.items() if value is not None}
    transitions[index] = replace(transitions[index], **values)
    if observation is not None and index and not transitions[index - 1].ended:
        transitions[index - 1] = replace(transitions[index - 1], next_observation=observation)
    present = history.observation
    if next_observation is not None:
        transitions[index] = replace(transitions[index], next_observation=next_observation)
        if not transitions[index].ended and index + 1 < len(transitions):
            following = replace(transitions[index + 1], observation=next_observation)
            transitions[index + 1] = following
        elif not transitions[index].ended:
            present = next_observation
    return EditedHistory(tuple(transitions), present)


def remove(history: EditedHistory, indices: Sequence[int]) -> EditedHistory:
    """Return the history without the transitions `indices`.

    Later steps of their episodes move up. An episode that loses its last transition ends with the
    transition before it. Raises ConfigError if there is no such transition.
    """
    transitions, episode, kept = _transitions(history, indices), history.episode, []
    for index, transition in enumerate(transitions):
        if index not in indices:
            kept.append((index, transition))
        elif transition.ended and kept and episode[kept[-1][0]] == episode[index]:
            flags = {"terminated": transition.terminated, "truncated": transition.truncated}
            kept[-1] = kept[-1][0], replace(kept[-1][1], **flags)
    return EditedHistory(tuple(transition for _, transition in kept), history.observation)


def reset_episode(history: EditedHistory, number: int) -> EditedHistory:
    """Return the history without the transitions of the episode `number`, from 0.

    If it is the present episode, the decision is made as at the beginning of an episode. Raises
    ConfigError if the episode has no transitions in the history.
    """
    indices = np.flatnonzero(history.episode[:-1] == number).tolist()
    if not indices:
        raise ConfigError(f"episode {number} has no transitions in the history")
    return remove(history, indices)


def _transitions(history: EditedHistory, indices: Sequence[int]) -> list[Transition]:
    for index in indices:
        if not 0 <= index < len(history):
            raise ConfigError(f"there is no transition {index}: the history has {len(history)}")
    return list(history.transitions)


class Reader:
    """A policy of one environment that reads an EditedHistory; `logits` [1, A] are of its decision.

    `within_episodes` is the method's: such a policy forgets an episode that has ended, so that only
    the present episode is read. Raises ConfigError for a policy without a window.
    """

    def __init__(self, policy: Policy, history: EditedHistory, within_episodes: bool = False):
        inner = context_policy(policy)
        self.policy, self.inner, self.history = policy, inner, history
        self.spec, self.within_episodes = inner.model.spec, within_episodes
        time = history.time
        with torch.inference_mode():
            for index in range(self._begin, len(history)):
                transition = history.transitions[index]
                observation = self._observation(transition.observation)
                inner.enter(observation, self._tensor(time[index]))
                self._observe(transition)
            self._act(time[-1])

    def add(self, transition: Transition, observation: Observation) -> None:
        """Read one more transition and the `observation` after it."""
        self.history = self.history.after(transition, observation)
        with torch.inference_mode():
            self._observe(transition)
            self._act(self.history.time[-1])

    def entries(self) -> np.ndarray:
        """Return the index in the history of each entry of the window, int64 [T + 1].

        The last entry is the present decision; -1 stands for an entry that does not exist.
        """
        window = self.inner.window()
        numbers = np.where(window["valid"][0].cpu(), window["step"][0].cpu() + self._begin, -1)
        numbers[-1] = len(self.history)
        return numbers

    def contexts(self) -> Contexts:
        """Return the window as a context of one task; only its last decision counts as decided."""
        window, entries = self.inner.window(), self.entries()
        window = {name: values.clone() for name, values in window.items()}
        episode = np.where(entries >= 0, self.history.episode[entries], -1)[None]
        decided = np.zeros(episode.shape, bool)
        decided[0, -1] = True
        arrays = {name: values.cpu().numpy() for name, values in window.items()}
        cell = number_observations(arrays, self.spec)
        asked = getattr(self.inner, "asked", None)
        asked = None if asked is None else asked.cpu().numpy().astype(np.float64)
        return Contexts(window, np.zeros(1, np.int64), [""], episode, decided, cell, 1, asked)

    @property
    def _begin(self) -> int:
        """The first transition of the history that the policy reads."""
        return len(self.history) - int(self.history.time[-1]) if self.within_episodes else 0

    def _act(self, time: int) -> None:
        observation = self._observation(self.history.observation)
        self.logits = self.policy.act(observation, self._tensor(time))

    def _observe(self, transition: Transition) -> None:
        values = transition.action, transition.reward, transition.terminated, transition.truncated
        next_observation = self._observation(transition.next_observation)
        self.policy.observe(*map(self._tensor, values), next_observation)

    def _tensor(self, value: float) -> torch.Tensor:
        return torch.tensor([value], device=self.inner.device)

    def _observation(self, parts: Observation) -> torch.Tensor | dict[str, torch.Tensor]:
        """Return the observation of one environment as policies read it."""
        dtypes = {name: part.window_dtype for name, part in self.spec.observation.items()}
        arrays = {n: np.array(values, dtypes[n])[None] for n, values in parts.items()}
        return observation_tensors(arrays, self.inner.device)


def explain(
    model: SequenceModel,
    contexts: Contexts,
    direction: torch.Tensor | None = None,
    mask: np.ndarray | None = None,
) -> Results:
    """Return what the model computes at the last decision of one context.

    outputs: by action. attention: by head and relation, with a row of uniform attention, NaN where
    no token is in a relation. components: the contribution of each to the `direction` [A], by
    default the best action against the second. relations: the contribution of the tokens in a
    relation through each head. direction: the weight of each action. `mask`, bool [A], marks the
    actions of the task.
    """
    from ad.interpret.analyses.attention import attention_sums
    from ad.interpret.analyses.reading import Reading, component_names, outputs, read_values
    from ad.interpret.relations import relation_names, relations

    out, components = outputs(model, contexts)[0, -1], component_names(model)
    if direction is None:
        best, second = best_two(out.cpu().numpy(), mask)
        direction = torch.zeros_like(out)
        direction[best] += 1
        direction[second] -= 1
    sums, counts = (values.sum((0, 1)) for values in attention_sums(model, contexts))
    heads = [name for name in components if name[0].isdigit()]
    reading = Reading(model, read_values(model, contexts), direction.to(out))
    masks = torch.stack(list(relations(model, contexts).values()), 2)[0, -1].float()  # [R, K]
    by_relation = reading.tokens()[0, -1].cpu() @ masks.T
    actions, names = {"action": list(range(len(out)))}, {"relation": relation_names(model)}
    arrays = {
        "outputs": (out.cpu(), actions, "output of the head"),
        "direction": (direction.cpu(), actions, "weight in the direction"),
        "attention": (
            np.where(counts > 0, sums, np.nan),
            {"head": ["uniform", *heads], **names},
            "share of attention of the last decision on the tokens of a relation",
        ),
        "components": (
            reading.components()[0, -1].cpu(),
            {"component": components},
            "contribution to the direction",
        ),
        "relations": (
            np.where(counts > 0, by_relation, np.nan),
            {"head": heads, **names},
            "contribution to the direction of the tokens of a relation",
        ),
    }
    return {
        name: LabeledArray(np.asarray(values), axes, about)
        for name, (values, axes, about) in arrays.items()
    }


def decision_values(model: SequenceModel, contexts: Contexts, point: str) -> torch.Tensor:
    """Return the values at `point` of the last decision's tokens in one context, [streams, M, C].

    Raises ConfigError for a point whose values are not vectors of the residual stream.
    """
    with torch.inference_mode(), hooked(model, read=(point,)) as values:
        model(contexts.window)
    value, told = values[point], model.tokenizer.entries(contexts.length)["decision"]
    if value.shape[1:] != (told.shape[1], model.transformer.width):
        raise ConfigError(f"the point {point} is no vector that can be added to")
    return value[:, -int((told[0] == contexts.length).sum()) :]


def adding(model: SequenceModel, vectors: torch.Tensor) -> Write:
    """Return a hook that adds `vectors` [streams, M, C] to the last M tokens of every decision.

    It does the same with a cache, which passes the new tokens alone.
    """
    first, two = (model.tokenizer.num_tokens(count) for count in (1, 2))
    padded = torch.zeros(len(vectors), max(two - first, vectors.shape[1]), vectors.shape[2])
    padded[:, : vectors.shape[1]] = vectors.flip(1)

    def add(value: torch.Tensor, point: Point) -> torch.Tensor:
        place = torch.arange(value.shape[1]) + torch.as_tensor(point.start).cpu()
        before_last = (first - 1 - place.flatten()) % (two - first)  # tokens after it in a decision
        return value + padded.to(value)[:, before_last]

    return add


def parse_observation(value: object, parts: Mapping[str, Part]) -> Observation:
    """Return the discrete observation that a list of whole numbers names.

    The list holds the index alone, or the numbers of a cell, e.g. its row and column. Raises
    ConfigError for another value, and for observations that are no such list.
    """
    part = parts.get("")
    if not isinstance(part, Discrete):
        raise ConfigError("only observations that are one number or one cell can be changed")
    sizes = (part.n,) if isinstance(value, list) and len(value) == 1 else part.factors
    is_index = isinstance(value, list) and len(value) == len(sizes)
    if not is_index or any(
        type(number) is not int or not 0 <= number < size
        for number, size in zip(value, sizes, strict=True)
    ):
        limits = ", ".join(f"0 to {size - 1}" for size in part.factors)
        raise ConfigError(f"an observation must be {len(part.factors)} whole numbers: {limits}")
    number = np.int64(np.ravel_multi_index(value, sizes))
    return {"": number}  # ty: ignore[invalid-explicit-return] a scalar acts as an array


def cell_part(parts: Mapping[str, Part]) -> str | None:
    """Return the part of an observation that is a picture of cells, None if there is none."""
    return next((name for name, part in parts.items() if shows_cells(part)), None)


def cells_of(observation: Observation, parts: Mapping[str, Part]) -> np.ndarray | None:
    """Return the encoded cells that are seen, uint8 [x, y, 3], None if there is no picture."""
    name = cell_part(parts)
    return None if name is None else encoded_cells(observation[name])


def put(
    history: EditedHistory, parts: Mapping[str, Part], thing: str, x: int, y: int
) -> EditedHistory:
    """Return the history in which the last observation shows one of THINGS in the cell (x, y).

    Such a picture need not be one that the world can show. Raises ConfigError if the observation
    has no such cell.
    """
    cells, name = cells_of(history.observation, parts), cell_part(parts)
    if cells is None or name is None or thing not in THINGS:
        raise ConfigError(f"no {thing} can be put into what the agent sees")
    if not (0 <= x < cells.shape[0] and 0 <= y < cells.shape[1]):
        raise ConfigError(f"the agent sees no cell ({x}, {y})")
    kind, color = THINGS[thing]
    cells = cells.copy()
    cells[x, y] = OBJECTS.index(kind), COLORS.index(color), 0
    seen = cells_in(parts[name].shape[2], cells)
    return replace(history, observation={**history.observation, name: seen})


def best_two(values: np.ndarray, mask: np.ndarray | None = None) -> tuple[int, int]:
    """Return the best action and the second by their values [A], among those in `mask`, bool [A].

    The only action of a task is both.
    """
    allowed = values if mask is None else np.where(mask, values, -np.inf)
    order = np.argsort(-allowed, kind="stable")
    second = order[1] if len(order) > 1 and allowed[order[1]] > -np.inf else order[0]
    return int(order[0]), int(second)
