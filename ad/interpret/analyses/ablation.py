"""Ablation: components are replaced, and loss, decisions and returns are compared.

A component is replaced in windows of the histories, whose loss it may raise; in the contexts, where
it may change the decisions that are looked at; and in whole rollouts, where it may change the
returns, of a model that is asked for returns for each of them.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch

from ad.data.dataset import to_device
from ad.data.episodes import ratio
from ad.errors import ConfigError
from ad.interpret.analysis import (
    MADE,
    MEASURES,
    ROLLOUT,
    Analysis,
    Subject,
    compared,
    estimate_text,
    estimated,
    texts,
)
from ad.interpret.components import (
    KINDS,
    Ablated,
    AblatedPolicy,
    Components,
    Replacements,
    parse_components,
)
from ad.interpret.contexts import OTHER_SEEDS, Environments
from ad.interpret.hooks import hooked
from ad.interpret.labeled import Axes, LabeledArray, Results
from ad.reporting.page import Table
from ad.rollout.rollout import Rollout
from envs.rng import derive_key
from envs.tasks import task_name

LOSS_WINDOWS = 256  # windows of the histories over which a loss is a mean
MOST_DECISIONS = 4096  # of the contexts that are decided again, at least those of BATCH windows
BATCH = 64  # windows


class Ablation(Analysis):
    """Effect of replacing each component on the loss, on decisions, and on the returns."""

    reads_histories: ClassVar[bool] = True
    reads_components: ClassVar[bool] = True
    sources: ClassVar[Sequence[str]] = (ROLLOUT, MADE)
    reads_outputs: ClassVar[bool] = True
    arrays: ClassVar[Axes] = {
        "loss": ("kind", "component"),
        "intact_loss": ("component",),
        "decisions": ("kind", "component", "measure"),
        "effect": ("kind", "component"),
        "by_reward_in_context": ("kind", "component", "reward in context"),
        "by_asked_return": ("kind", "component", "asked return"),
        "curves": ("kind", "component", "episode"),
        "intact_curve": ("episode",),
    }

    @classmethod
    def check(cls, subject):
        """Raise ConfigError with the reason if the subject cannot be analyzed."""
        super().check(subject)
        if subject.policy.looks_ahead:
            raise ConfigError("the policy plans: set evaluation.policy {plan_steps: 0}")

    def run(self, subject):
        """Return the effect on loss and return by kind and component, and the learning curves."""
        names = list(subject.choice.components or subject.components)
        components = [parse_components(name, subject.model.transformer) for name in names]
        points = tuple(dict.fromkeys(component.point for each in components for component in each))
        replacements = Replacements.of_contexts(subject.model, subject.all_contexts, points)
        axes = {"kind": list(KINDS), "component": names}
        results: Results = {}
        if subject.method.reads_histories:
            loss, intact = ablated_losses(subject, replacements, components)
            is_held_out = subject.run.config.data.held_out_actors
            about = f"rise of the loss on {'held-out' if is_held_out else 'all'} actors"
            none = {"component": ["none"]}
            results["loss"] = LabeledArray(loss - intact, axes, about)
            results["intact_loss"] = LabeledArray(np.array([intact]), none, "loss, intact")
        results |= _decisions(subject, replacements, components, axes)
        played = subject.environments(subject.run.split.held_out_tasks, OTHER_SEEDS)
        if played.unit == "episode":  # many are played, and all of an environment are alike
            played = replace(played, episodes=1)
        rollout = ablated_rollout(subject, replacements, components, played)
        return results | _curves(rollout, axes, played)

    def table(self, results):
        """Return the rise of the loss, and the change of the return for ablation by the mean."""
        has_loss = "loss" in results
        header = ["component", *(f"loss, {kind}" for kind in KINDS if has_loss)]
        decisions = results["decisions"]
        header += [f"{measure}, mean" for measure in decisions.axes["measure"]]
        name = "by_asked_return" if "by_asked_return" in results else "by_reward_in_context"
        parted, noun = results[name], list(results[name].axes)[2]
        header += ["return, mean", *(f"{noun} {label}" for label in parted.axes[noun])]
        rows = []
        for component in results["effect"].axes["component"]:
            label = {"kind": "mean", "component": component}
            effect, bounds = (results[n].at(**label) for n in ("effect", "effect_interval"))
            losses = texts(results["loss"].at(component=component), "+.3f") if has_loss else []
            changes = texts(decisions.at(**label), ".3f")
            returns = [estimate_text(effect, *bounds, "+.3f"), *texts(parted.at(**label), "+.3f")]
            rows.append([component, *losses, *changes, *returns])
        return Table(header, rows)


def ablated_losses(
    subject: Subject, replacements: Replacements, components: Sequence[Components]
) -> tuple[np.ndarray, float]:
    """Return the loss by kind and components, [kinds, n], and the intact loss.

    It is a mean over windows of held-out actors, or of all actors where none is held out.
    """
    model, dataset = subject.model, subject.dataset
    sampler = subject.method.sampler(dataset, bool(dataset.config.data.held_out_actors))
    rng = np.random.default_rng(derive_key(0, "interpret", "loss"))
    batch = to_device(sampler.sample(rng, LOSS_WINDOWS), model.head.weight.device)

    def loss(kind: str = "zero", replaced: Components = ()) -> float:
        rows = replacements.rows(kind, [None] * LOSS_WINDOWS)  # of train tasks
        ablated = Ablated(model, replacements, [replaced] * LOSS_WINDOWS, rows)
        with torch.inference_mode(), hooked(model, write=ablated.writes()):
            return float(subject.method.loss(model, batch)[0])

    return np.array([[loss(kind, one) for one in components] for kind in KINDS]), loss()


def _decisions(
    subject: Subject,
    replacements: Replacements,
    components: Sequence[Components],
    axes: dict[str, list[str]],
) -> Results:
    """Return how each kind and component changes the decisions of some contexts."""
    model, direction = subject.model, subject.output_direction
    most = max(BATCH, MOST_DECISIONS // subject.contexts.length)
    contexts = subject.contexts.spread(most)
    own = [contexts.groups[group] for group in contexts.group]

    def logits(kind: str = "zero", replaced: Components = ()) -> torch.Tensor:
        rows = replacements.rows(kind, own)
        ablated, batches = Ablated(model, replacements, [replaced] * len(own), rows), []
        for start in range(0, len(own), BATCH):
            batch = slice(start, start + BATCH)
            with torch.inference_mode(), hooked(model, write=ablated.writes(batch)):
                batches.append(model(contexts.select(batch).window).double().cpu())
        return torch.cat(batches)

    intact = logits()
    changes = []
    for kind, component in itertools.product(KINDS, components):
        changed = logits(kind, component)
        measures = compared(intact, changed)
        if direction is not None:
            along = (changed - intact) @ direction.double().cpu()
            measures = torch.cat([measures, along[..., None]], -1)
        changes.append(measures)
    sums = contexts.total(torch.stack(changes, 2)).sum(1)  # [K, kinds * components, measures]
    counts = contexts.total(torch.ones(intact.shape[:2])).sum(1)
    names = [*MEASURES]
    names += [f"change of {subject.choice.direction}"] if direction is not None else []
    shape = len(counts), len(KINDS), len(components), len(names)
    values = ratio(sums, counts[:, None, None]).reshape(shape)
    about = "decisions of contexts, against the intact model"
    return estimated("decisions", values, {**axes, "measure": names}, about, contexts.unit)


def ablated_rollout(
    subject: Subject,
    replacements: Replacements,
    components: Sequence[Components],
    played: Environments,
) -> Rollout:
    """Return the rollout of N environments, intact and then by kind and entry of `components`.

    All are played in one rollout of (1 + kinds × entries) × N environments, with the same seeds. A
    resampled context is of another task, or of other episodes: those of the contexts have other
    seeds.
    """
    own = [task_name(task) if played.unit == "task" else None for _, task in played.pairs]
    rows = [replacements.rows("zero", own)]
    replaced: list[Components] = [()] * len(own)
    for kind in KINDS:
        for entry in components:
            replaced += [entry] * len(own)
            rows.append(replacements.rows(kind, own))
    ablated = Ablated(subject.model, replacements, replaced, torch.cat(rows))
    every = played.times(1 + len(KINDS) * len(components))
    return subject.play(every, lambda policy: AblatedPolicy(policy, ablated))


def _curves(played: Rollout, axes: dict[str, list[str]], envs: Environments) -> Results:
    """Return the learning curves of `ablated_rollout`, and the changes of the mean return.

    An ablated episode is compared with the intact episode of the same number. The changes by reward
    in context are means over episodes that the intact rollout began with, or without, a reward in
    the context.
    """
    kinds, components = map(len, axes.values())
    shape = 1 + kinds * components, len(envs.pairs), -1
    returns = played.returns.reshape(shape).astype(float)  # [., N, E]
    reward_in_context = played.reward_in_context.reshape(shape)[0].astype(float)
    change = returns[1:] - returns[:1]
    episodes = {"episode": list(range(1, returns.shape[2] + 1))}
    curves = returns.mean(1)
    results: Results = {
        "curves": LabeledArray(
            curves[1:].reshape(kinds, components, -1), {**axes, **episodes}, "mean return"
        ),
        "intact_curve": LabeledArray(curves[0], episodes, "mean return, intact"),
    }

    def add(name: str, values: np.ndarray, more: dict[str, list], about: str) -> None:
        """Add the mean over groups of values [kinds * components, K, ...] with its interval."""
        values = values.swapaxes(0, 1)
        values = values.reshape(len(values), kinds, components, *values.shape[2:])
        about = f"change of the mean return over in-context episodes{about}"
        results.update(estimated(name, values, {**axes, **more}, about, envs.unit))

    add("effect", envs.by_group(change).mean(2), {}, "")
    masks = (reward_in_context, 1 - reward_in_context)
    parts = [ratio(envs.by_group(change * m).sum(2), envs.by_group(m).sum(1)) for m in masks]
    about = " that began with a reward in the context of the intact model"
    parted = {"reward in context": ["yes", "no"]}
    add("by_reward_in_context", np.stack(parts, 2), parted, about)
    if envs.asked is not None:
        asked = list(dict.fromkeys(envs.asked.tolist()))
        masks = [np.where(envs.asked == value, 1.0, np.nan)[:, None] for value in asked]
        parts = [envs.by_group(change * m).mean(2) for m in masks]
        labels = {"asked return": [float(f"{value:.4g}") for value in asked]}
        add("by_asked_return", np.stack(parts, 2), labels, " by asked return")
    return results
