"""Ablation: components are replaced, and the loss and the in-context learning curve compared."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch

from ad.data.dataset import to_device
from ad.data.episodes import ratio
from ad.data.histories import HistoryStore
from ad.errors import ConfigError
from ad.interpret.analysis import Analysis, Subject, estimate_text, over_groups, texts
from ad.interpret.components import (
    KINDS,
    Ablated,
    AblatedPolicy,
    Components,
    Replacements,
    parse_components,
)
from ad.interpret.hooks import hooked
from ad.interpret.labeled import BOUND, Axes, LabeledArray, with_interval
from ad.methods.policy import Policy
from ad.reporting.page import Table
from ad.rollout.rollout import Rollout
from ad.rollout.tasks import policy_of, rollout_envs
from envs.rng import derive_key
from envs.tasks import task_name

LOSS_WINDOWS = 256  # windows of the histories over which a loss is a mean


class Ablation(Analysis):
    """Effect of replacing each component on the loss and on the in-context learning curve."""

    reads_components: ClassVar[bool] = True
    arrays: ClassVar[Axes] = {
        "loss": ("kind", "component"),
        "intact_loss": ("component",),
        "effect": ("kind", "component"),
        "effect_interval": (BOUND, "kind", "component"),
        "by_reward_in_context": ("kind", "component", "reward in context"),
        "by_reward_in_context_interval": (BOUND, "kind", "component", "reward in context"),
        "curves": ("kind", "component", "episode"),
        "intact_curve": ("episode",),
    }

    @classmethod
    def check(cls, subject):
        """Raise ConfigError with the reason if the subject cannot be analyzed."""
        run = subject.run
        if HistoryStore(run.config).folders(run.split.train_tasks) is None:
            raise ConfigError("the learning histories are missing: run scripts.collect first")
        if subject.source != "rollout":
            raise ConfigError("the contexts are not of rollouts on held-out tasks")
        if len(run.split.held_out_tasks) < 2:
            raise ConfigError("there is one held-out task, and resampling takes another one")
        super().check(subject)
        if subject.policy.looks_ahead:
            raise ConfigError("the policy plans: set evaluation.policy {plan_steps: 0}")

    def run(self, subject):
        """Return the effect on loss and return by kind and component, and the learning curves."""
        names = list(subject.components or default_components(subject))
        components = [parse_components(name, subject.model.transformer) for name in names]
        points = tuple(dict.fromkeys(component.point for each in components for component in each))
        replacements = Replacements.of_contexts(subject.model, subject.contexts, points)
        axes = {"kind": list(KINDS), "component": names}
        loss, intact = ablated_losses(subject, replacements, components)
        results = {
            "loss": LabeledArray(loss - intact, axes, "rise of the loss on held-out actors"),
            "intact_loss": LabeledArray(
                np.array([intact]), {"component": ["none"]}, "loss, intact"
            ),
        }
        return results | _curves(ablated_rollout(subject, replacements, components), axes)

    def table(self, results):
        """Return the rise of the loss, and the change of the return for ablation by the mean."""
        header = ["component", *(f"loss, {kind}" for kind in KINDS)]
        header += ["return, mean", "reward in context", "no reward in context"]
        rows = []
        for component in results["loss"].axes["component"]:
            effect, bounds, by_reward = (
                results[name].at(kind="mean", component=component)
                for name in ("effect", "effect_interval", "by_reward_in_context")
            )
            losses = texts(results["loss"].at(component=component), "+.3f")
            returns = [estimate_text(effect, *bounds, "+.3f"), *texts(by_reward, "+.3f")]
            rows.append([component, *losses, *returns])
        return Table(header, rows)


def default_components(subject: Subject) -> list[str]:
    """Return the names of every head and every MLP."""
    layers = range(len(subject.model.transformer.blocks))
    return [*subject.heads, *(f"mlp {layer}" for layer in layers)]


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


def ablated_rollout(
    subject: Subject, replacements: Replacements, components: Sequence[Components]
) -> Rollout:
    """Return the rollout on the held-out tasks, intact and then by kind and entry of `components`.

    All are played in one rollout of (1 + kinds × entries) × tasks environments, with the same
    seeds.
    """
    run, tasks = subject.run, subject.run.split.held_out_tasks
    names = [task_name(task) for task in tasks]
    replaced, rows = [()] * len(tasks), [replacements.rows("zero", names)]
    for kind in KINDS:
        for entry in components:
            replaced += [entry] * len(tasks)
            rows.append(replacements.rows(kind, names))
    ablated = Ablated(subject.model, replacements, replaced, torch.cat(rows))
    new_policy = policy_of(run.config, subject.method, subject.model)

    def new_ablated(num_envs: int) -> Policy:
        return AblatedPolicy(new_policy(num_envs), ablated)

    envs = [(0, task) for task in tasks] * (1 + len(KINDS) * len(components))
    return rollout_envs(run.config, envs, new_ablated, run.config.evaluation.episodes)


def _curves(played: Rollout, axes: dict[str, list[str]]) -> dict[str, LabeledArray]:
    """Return the learning curves of `ablated_rollout`, and the changes of the mean return.

    An ablated episode is compared with the intact episode of the same number. The changes by reward
    in context are means over episodes that the intact rollout began with, or without, a reward in
    the context.
    """
    kinds, components = map(len, axes.values())
    returns, reward_in_context = (
        values.reshape(1 + kinds * components, -1, values.shape[1]).astype(float)  # [., K, E]
        for values in (played.returns, played.reward_in_context)
    )
    change = (returns - returns[:1])[1:].swapaxes(0, 1)  # [K, kinds * components, E]
    has_reward = reward_in_context[0][:, None]  # [K, 1, E] of the intact rollout
    groups = [ratio((change * mask).sum(2), mask.sum(2)) for mask in (has_reward, 1 - has_reward)]

    def by_component(values: np.ndarray, *leading: int) -> np.ndarray:
        size = values.shape[len(leading) + 1 :]
        return values.reshape(*leading, kinds, components, *size)

    effect, interval = over_groups(change.mean(2))
    by_reward, by_reward_interval = over_groups(np.stack(groups, 2))
    about = "change of the mean return over in-context episodes"
    episodes = {"episode": list(range(1, returns.shape[2] + 1))}
    curves = by_component(returns.mean(1)[1:])
    return {
        **with_interval(
            "effect",
            by_component(effect),
            by_component(interval, 2),
            axes,
            f"{about}: mean over tasks",
        ),
        **with_interval(
            "by_reward_in_context",
            by_component(by_reward),
            by_component(by_reward_interval, 2),
            {**axes, "reward in context": ["yes", "no"]},
            f"{about} that began with a reward in the context of the intact model: mean over tasks",
        ),
        "curves": LabeledArray(curves, {**axes, **episodes}, "mean return"),
        "intact_curve": LabeledArray(returns[0].mean(0), episodes, "mean return, intact"),
    }
