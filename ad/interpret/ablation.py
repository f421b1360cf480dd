"""Ablation: heads, MLPs and neurons are replaced, and the loss and the learning curve compared.

What a part writes is replaced by zero, by its mean over contexts at the same position, or by what
it wrote at that position in a context of another task (resample). The mean leaves what the part
always does, and resampling also keeps the spread, so that the rest of the model sees what it was
trained on (Wang et al. 2023, arXiv 2211.00593, and Chan et al. 2022, "Causal scrubbing").
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch

from ad.data.dataset import to_device
from ad.data.episodes import ratio
from ad.data.histories import Histories
from ad.interpret.analysis import Analysis, Subject, over_tasks
from ad.interpret.contexts import Contexts
from ad.interpret.hooks import Point, Write, hooked
from ad.interpret.labeled import LabeledArray
from ad.interpret.parts import Parts, parse_parts
from ad.models.sequence_model import SequenceModel
from ad.reporting.tables import UNKNOWN, Table
from ad.rollout.rollout import Policy, Rollout
from ad.rollout.tasks import policy_of, rollout_envs
from envs.rng import derive_key
from envs.tasks import task_name

KINDS = ("zero", "mean", "resample")
NUM_SAMPLES = 64  # contexts that resampling draws from
LOSS_WINDOWS = 256  # windows of the histories over which a loss is a mean


@dataclass(frozen=True)
class Replacements:
    """What parts can be replaced by at each point.

    `tables` by point are [2 + M, streams, L, ...]: zero, the mean, and M contexts at L positions,
    whose tasks are `tasks`.
    """

    tables: dict[str, torch.Tensor]
    streams: int
    tasks: Sequence[str]

    @classmethod
    def of_contexts(
        cls, model: SequenceModel, contexts: Contexts, points: Sequence[str]
    ) -> "Replacements":
        """Return the replacements at `points`, with samples of all tasks of `contexts`."""
        drawn = _donors(contexts)
        sums, count = {}, 0.0
        for batch in contexts.batches():
            exists = _token_exists(model, batch)
            count = count + exists.sum(0)
            for name, value in _values(model, batch, points).items():
                sums[name] = sums.get(name, 0.0) + (value * _like(exists, value)).sum(0)
        samples = _values(model, drawn, points)
        tables = {}
        for name, total in sums.items():
            mean = total / _like(count.clamp(min=1), total)
            tables[name] = torch.cat([torch.zeros_like(mean)[None], mean[None], samples[name]])
        tasks = [contexts.tasks[task] for task in drawn.task]
        return cls(tables, model.tokenizer.streams, tasks)

    def choices(self, kind: str, tasks: Sequence[str | None]) -> torch.Tensor:
        """Return the rows of the tables that replace the parts of windows of `tasks`, int64 [N].

        A context is drawn from those of other tasks; None is a task that no context has.
        """
        if kind != "resample":
            return torch.full((len(tasks),), KINDS.index(kind))
        others = {
            task: [row for row, other in enumerate(self.tasks, 2) if other != task]
            for task in set(tasks)
        }
        return torch.tensor([others[t][n % len(others[t])] for n, t in enumerate(tasks)])

    def write(self, masks: torch.Tensor, choices: torch.Tensor) -> Write:
        """Return the function that replaces a value where `masks` [N, ...] say so.

        The masks have the dimensions of the value after its positions, `choices` int64 [N].
        """

        def replace(value: torch.Tensor, point: Point) -> torch.Tensor:
            table = self.tables[point.name]
            place = torch.arange(point.start, point.start + value.shape[1])
            place = place.clamp(max=table.shape[2] - 1)  # a rollout may last longer than contexts
            chosen = table[choices[:, None], :, place].transpose(1, 2).flatten(0, 1)
            mask = masks.repeat_interleave(self.streams, dim=0)[:, None]
            return torch.where(mask.to(value.device), chosen, value)

        return replace


class Ablated:
    """N windows, each with parts that are replaced in it."""

    def __init__(
        self,
        model: SequenceModel,
        replacements: Replacements,
        parts: Sequence[Parts],
        choices: torch.Tensor,
    ):
        self.model, self.replacements, self.choices = model, replacements, choices
        points = dict.fromkeys(part.point for row in parts for part in row)
        self.masks = {point: self._mask(point, parts) for point in points}

    def writes(self, rows: torch.Tensor | slice = slice(None)) -> dict[str, Write]:
        """Return the functions for `hooked` that replace the parts of the windows `rows`."""
        choices = self.choices[rows]
        return {
            point: self.replacements.write(mask[rows], choices)
            for point, mask in self.masks.items()
        }

    def _mask(self, point: str, parts: Sequence[Parts]) -> torch.Tensor:
        """Return which coordinates at `point` are replaced in each window, bool [N, ...]."""
        table = self.replacements.tables[point]
        sizes = (*table.shape[3:-1], 1) if table.dim() > 4 else table.shape[3:]
        mask = torch.zeros((len(parts), *sizes), dtype=torch.bool)
        for row, of_window in enumerate(parts):
            for part in of_window:
                if part.point == point:
                    mask[row, slice(None) if part.index is None else part.index] = True
        return mask


class AblatedPolicy:
    """A policy whose environments are those of an Ablated, and stay so when some have finished."""

    def __init__(self, policy: Policy, ablated: Ablated):
        self.policy, self.ablated = policy, ablated
        self.rows = torch.arange(len(ablated.choices))
        self.observe, self.device = policy.observe, ablated.model.head.weight.device
        if hasattr(policy, "reward_in_context"):
            self.reward_in_context = policy.reward_in_context
        if hasattr(policy, "set_action_mask"):
            self.set_action_mask = policy.set_action_mask

    def act(self, observation, time: torch.Tensor) -> torch.Tensor:
        """Return action logits [N, A] with the parts of each environment replaced."""
        with hooked(self.ablated.model, write=self.ablated.writes(self.rows)):
            return self.policy.act(observation, time)

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order; indices may repeat."""
        self.rows = self.rows[envs.cpu()]
        self.policy.select(envs)


class Ablation(Analysis):
    """What the loss and the in-context learning curve become without a part of the model."""

    reads_parts: ClassVar[bool] = True

    @classmethod
    def problem(cls, subject):
        """Return why the model does not have this analysis, None if it does."""
        run = subject.run
        if Histories(run.config).folders(run.split.train_tasks) is None:
            return "needs the learning histories: run scripts.collect first"
        if subject.source != "rollout":
            return "needs contexts from rollouts, which are of other tasks than its losses"
        if len(run.split.held_out_tasks) < 2:
            return "needs two held-out tasks: it resamples from another one"
        if getattr(subject.policy, "plan_steps", 0):
            return (
                "needs a policy that does not plan, which reads each environment once a decision: "
                "evaluation.policy {plan_steps: 0}"
            )
        return super().problem(subject)

    def run(self, subject):
        """Return the effect on loss and return by kind and part, and the learning curves."""
        names = list(subject.parts or default_parts(subject))
        parts = [parse_parts(name, subject.model.transformer) for name in names]
        points = tuple(dict.fromkeys(part.point for row in parts for part in row))
        replacements = Replacements.of_contexts(subject.model, subject.contexts, points)
        axes = {"kind": list(KINDS), "part": names}
        loss, intact = ablated_losses(subject, replacements, parts)
        results = {
            "loss": LabeledArray(loss - intact, axes, "rise of the loss on held-out actors"),
            "intact_loss": LabeledArray(np.array([intact]), {"part": ["none"]}, "loss, intact"),
        }
        return results | _curves(ablated_rollout(subject, replacements, parts), axes)

    def table(self, results):
        """Return the rise of the loss, and the change of the return for ablation by the mean."""
        loss, effect, interval = (results[name] for name in ("loss", "effect", "interval"))
        by_reward = results["by_reward_in_context"]
        header = ["part", *(f"loss, {kind}" for kind in KINDS), "return, mean", "95 % interval"]
        header += ["reward in context", "no reward in context"]
        rows = []
        for part in loss.axes["part"]:
            low, high = interval.at(kind="mean", part=part)
            changes = by_reward.at(kind="mean", part=part)
            rows.append(
                [part, *(f"{value:+.3f}" for value in loss.at(part=part))]
                + [f"{effect.at(kind='mean', part=part):+.3f}", f"[{low:+.3f}, {high:+.3f}]"]
                + [UNKNOWN if np.isnan(value) else f"{value:+.3f}" for value in changes]
            )
        return Table(header, rows)


def default_parts(subject: Subject) -> list[str]:
    """Return the names of every head and every MLP."""
    layers = range(len(subject.model.transformer.blocks))
    return [*subject.heads, *(f"mlp {layer}" for layer in layers)]


def ablated_losses(
    subject: Subject, replacements: Replacements, parts: Sequence[Parts]
) -> tuple[np.ndarray, float]:
    """Return the loss on the windows of held-out actors by kind and parts, and the intact loss.

    The windows are those of all actors where none is held out.
    """
    model, dataset = subject.model, subject.dataset
    sampler = subject.method.sampler(dataset, bool(dataset.config.data.held_out_actors))
    rng = np.random.default_rng(derive_key(0, "interpret", "loss"))
    batch = to_device(sampler.sample(rng, LOSS_WINDOWS), model.head.weight.device)

    def loss(kind: str = "zero", of_windows: Parts = ()) -> float:
        choices = replacements.choices(kind, [None] * LOSS_WINDOWS)  # of train tasks
        ablated = Ablated(model, replacements, [of_windows] * LOSS_WINDOWS, choices)
        with torch.inference_mode(), hooked(model, write=ablated.writes()):
            return float(subject.method.loss(model, batch)[0])

    return np.array([[loss(kind, one) for one in parts] for kind in KINDS]), loss()


def ablated_rollout(
    subject: Subject, replacements: Replacements, parts: Sequence[Parts]
) -> Rollout:
    """Return the rollout on the held-out tasks with nothing replaced, then by kind and parts.

    All are played in one rollout of (1 + kinds × parts) × tasks environments, with the same seeds.
    """
    run, tasks = subject.run, subject.run.split.held_out_tasks
    names = [task_name(task) for task in tasks]
    of_windows, choices = [()] * len(tasks), [replacements.choices("zero", names)]
    for kind in KINDS:
        for one in parts:
            of_windows += [one] * len(tasks)
            choices.append(replacements.choices(kind, names))
    ablated = Ablated(subject.model, replacements, of_windows, torch.cat(choices))
    new_policy = policy_of(run.config, subject.method, subject.model)

    def new_ablated(num_envs: int) -> Policy:
        return AblatedPolicy(new_policy(num_envs), ablated)

    envs = [(0, task) for task in tasks] * (1 + len(KINDS) * len(parts))
    return rollout_envs(run.config, envs, new_ablated, run.config.evaluation.episodes)


def _curves(played: Rollout, axes: dict[str, list[str]]) -> dict[str, LabeledArray]:
    """Return the learning curves of `ablated_rollout` and the changes of the mean return.

    An episode of the intact rollout and that of the same number in another are compared, those
    apart that the intact rollout began with a reward in the context.
    """
    kinds, parts = map(len, axes.values())
    returns, reward_in_context = (
        values.reshape(1 + kinds * parts, -1, values.shape[1]).astype(float)  # [., K, E]
        for values in (played.returns, played.reward_in_context)
    )
    shape = partial(np.reshape, shape=(kinds, parts, -1))
    episodes = {"episode": list(range(1, returns.shape[2] + 1))}
    change = (returns - returns[:1])[1:].swapaxes(0, 1)  # [K, kinds * parts, E]
    effect, interval = over_tasks(change.mean(2))
    known = reward_in_context[0][:, None]  # [K, 1, E] of the intact rollout
    of_masks = [ratio((change * mask).sum(2), mask.sum(2)) for mask in (known, 1 - known)]
    by_reward, by_reward_interval = over_tasks(np.stack(of_masks, 2))
    bound = {"bound": ["low", "high"], **axes}
    asked = {"reward in context": ["yes", "no"]}
    about = "change of the mean return over in-context episodes"
    return {
        "effect": LabeledArray(effect.reshape(kinds, parts), axes, f"{about}: mean over tasks"),
        "interval": LabeledArray(
            interval.reshape(2, kinds, parts), bound, "95 % interval of effect"
        ),
        "by_reward_in_context": LabeledArray(
            shape(by_reward),
            {**axes, **asked},
            f"{about} that began with a reward in the context of the intact model: mean over tasks",
        ),
        "by_reward_in_context_interval": LabeledArray(
            by_reward_interval.reshape(2, kinds, parts, 2),
            {**bound, **asked},
            "95 % interval of by_reward_in_context",
        ),
        "curves": LabeledArray(shape(returns.mean(1)[1:]), {**axes, **episodes}, "mean return"),
        "intact_curve": LabeledArray(returns[0].mean(0), episodes, "mean return, intact"),
    }


def _donors(contexts: Contexts) -> Contexts:
    """Return the contexts to resample from: of all tasks as many, and the longest of each."""
    rng = np.random.default_rng(derive_key(0, "interpret", "resample"))
    order = rng.permutation(len(contexts))
    order = order[np.argsort(-contexts.valid[order].sum(1), kind="stable")]
    earlier = contexts.task[order][:, None] == contexts.task[order]
    rank = np.tril(earlier, -1).sum(1)  # of a context among those of its task
    return contexts.select(order[np.argsort(rank, kind="stable")][:NUM_SAMPLES])


def _values(
    model: SequenceModel, batch: Contexts, points: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Return the values at `points`, [B, streams, L, ...]."""
    with torch.inference_mode(), hooked(model, tuple(points)) as values:
        model(batch.window)
    streams = model.tokenizer.streams
    return {name: value.unflatten(0, (-1, streams)) for name, value in values.items()}


def _token_exists(model: SequenceModel, batch: Contexts) -> torch.Tensor:
    """Return which tokens belong to a decision of their window, [B, streams, L] of 0 and 1."""
    decision = model.tokenizer.entries(batch.length)["decision"]
    return torch.from_numpy(batch.valid)[:, decision].to(model.head.weight)


def _like(values: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return `values` with dimensions of 1 appended until they broadcast to `other`."""
    return values.reshape(*values.shape, *[1] * (other.dim() - values.dim()))
