"""Ablation: components are replaced, and the loss and the in-context learning curve compared."""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import numpy as np
import torch

from ad.data.dataset import to_device
from ad.data.episodes import ratio
from ad.data.histories import HistoryStore
from ad.interpret.analysis import Analysis, Subject, interval_text, over_tasks
from ad.interpret.components import Components, parse_components
from ad.interpret.hooks import hooked
from ad.interpret.labeled import BOUND, Axes, LabeledArray
from ad.interpret.replacements import KINDS, Ablated, AblatedPolicy, Replacements
from ad.reporting.tables import UNKNOWN, Table
from ad.rollout.rollout import Policy, Rollout
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
        "interval": (BOUND, "kind", "component"),
        "by_reward_in_context": ("kind", "component", "reward in context"),
        "by_reward_in_context_interval": (BOUND, "kind", "component", "reward in context"),
        "curves": ("kind", "component", "episode"),
        "intact_curve": ("episode",),
    }

    @classmethod
    def problem(cls, subject):
        """Return why the model does not have this analysis, None if it does."""
        run = subject.run
        if HistoryStore(run.config).folders(run.split.train_tasks) is None:
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
        """Return the effect on loss and return by kind and component, and the learning curves."""
        names = list(subject.components or default_components(subject))
        components = [parse_components(name, subject.model.transformer) for name in names]
        points = tuple(dict.fromkeys(component.point for row in components for component in row))
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
        loss, effect, interval = (results[name] for name in ("loss", "effect", "interval"))
        by_reward = results["by_reward_in_context"]
        header = [
            "component",
            *(f"loss, {kind}" for kind in KINDS),
            "return, mean",
            "95 % interval",
        ]
        header += ["reward in context", "no reward in context"]
        rows = []
        for component in loss.axes["component"]:
            low, high = interval.at(kind="mean", component=component)
            changes = by_reward.at(kind="mean", component=component)
            rows.append(
                [component, *(f"{value:+.3f}" for value in loss.at(component=component))]
                + [
                    f"{effect.at(kind='mean', component=component):+.3f}",
                    interval_text(low, high, "+.3f"),
                ]
                + [UNKNOWN if np.isnan(value) else f"{value:+.3f}" for value in changes]
            )
        return Table(header, rows)


def default_components(subject: Subject) -> list[str]:
    """Return the names of every head and every MLP."""
    layers = range(len(subject.model.transformer.blocks))
    return [*subject.heads, *(f"mlp {layer}" for layer in layers)]


def ablated_losses(
    subject: Subject, replacements: Replacements, components: Sequence[Components]
) -> tuple[np.ndarray, float]:
    """Return the loss on the windows of held-out actors by kind and row, and the intact loss.

    The windows are those of all actors where none is held out.
    """
    model, dataset = subject.model, subject.dataset
    sampler = subject.method.sampler(dataset, bool(dataset.config.data.held_out_actors))
    rng = np.random.default_rng(derive_key(0, "interpret", "loss"))
    batch = to_device(sampler.sample(rng, LOSS_WINDOWS), model.head.weight.device)

    def loss(kind: str = "zero", of_windows: Components = ()) -> float:
        choices = replacements.choices(kind, [None] * LOSS_WINDOWS)  # of train tasks
        ablated = Ablated(model, replacements, [of_windows] * LOSS_WINDOWS, choices)
        with torch.inference_mode(), hooked(model, write=ablated.writes()):
            return float(subject.method.loss(model, batch)[0])

    return np.array([[loss(kind, one) for one in components] for kind in KINDS]), loss()


def ablated_rollout(
    subject: Subject, replacements: Replacements, components: Sequence[Components]
) -> Rollout:
    """Return the rollout on the held-out tasks with nothing replaced, then by kind and row.

    A row of `components` is replaced together. All are played in one rollout of (1 + kinds × rows)
    × tasks environments, with the same seeds.
    """
    run, tasks = subject.run, subject.run.split.held_out_tasks
    names = [task_name(task) for task in tasks]
    of_windows, choices = [()] * len(tasks), [replacements.choices("zero", names)]
    for kind in KINDS:
        for one in components:
            of_windows += [one] * len(tasks)
            choices.append(replacements.choices(kind, names))
    ablated = Ablated(subject.model, replacements, of_windows, torch.cat(choices))
    new_policy = policy_of(run.config, subject.method, subject.model)

    def new_ablated(num_envs: int) -> Policy:
        return AblatedPolicy(new_policy(num_envs), ablated)

    envs = [(0, task) for task in tasks] * (1 + len(KINDS) * len(components))
    return rollout_envs(run.config, envs, new_ablated, run.config.evaluation.episodes)


def _curves(played: Rollout, axes: dict[str, list[str]]) -> dict[str, LabeledArray]:
    """Return the learning curves of `ablated_rollout` and the changes of the mean return.

    An episode of the intact rollout and that of the same number in another are compared, those
    apart that the intact rollout began with a reward in the context.
    """
    kinds, components = map(len, axes.values())
    returns, reward_in_context = (
        values.reshape(1 + kinds * components, -1, values.shape[1]).astype(float)  # [., K, E]
        for values in (played.returns, played.reward_in_context)
    )
    shape = partial(np.reshape, shape=(kinds, components, -1))
    episodes = {"episode": list(range(1, returns.shape[2] + 1))}
    change = (returns - returns[:1])[1:].swapaxes(0, 1)  # [K, kinds * components, E]
    effect, interval = over_tasks(change.mean(2))
    known = reward_in_context[0][:, None]  # [K, 1, E] of the intact rollout
    of_masks = [ratio((change * mask).sum(2), mask.sum(2)) for mask in (known, 1 - known)]
    by_reward, by_reward_interval = over_tasks(np.stack(of_masks, 2))
    bound = {"bound": ["low", "high"], **axes}
    asked = {"reward in context": ["yes", "no"]}
    about = "change of the mean return over in-context episodes"
    return {
        "effect": LabeledArray(
            effect.reshape(kinds, components), axes, f"{about}: mean over tasks"
        ),
        "interval": LabeledArray(
            interval.reshape(2, kinds, components), bound, "95 % interval of effect"
        ),
        "by_reward_in_context": LabeledArray(
            shape(by_reward),
            {**axes, **asked},
            f"{about} that began with a reward in the context of the intact model: mean over tasks",
        ),
        "by_reward_in_context_interval": LabeledArray(
            by_reward_interval.reshape(2, kinds, components, 2),
            {**bound, **asked},
            "95 % interval of by_reward_in_context",
        ),
        "curves": LabeledArray(shape(returns.mean(1)[1:]), {**axes, **episodes}, "mean return"),
        "intact_curve": LabeledArray(returns[0].mean(0), episodes, "mean return, intact"),
    }
