"""Probes: what can be read off the residual stream, and recurrent states, on held-out tasks.

A probe is fitted on decisions in rollouts on the train tasks and scored in rollouts on the held-out
tasks, after the embedding and each layer, and in the states of recurrent layers. A class is scored
by balanced accuracy, a number by R². The control task gives each observation a random label of the
same kind, which the model has no reason to represent: a probe with a similar score there has
learned the task by itself (Hewitt and Liang 2019, arXiv 1909.03368). The stage BASELINE has no
activations, but the observation, the episode and the time: what these tell of a label, the model
need not represent.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from ad.errors import ConfigError
from ad.evaluation.scores import UNKNOWN
from ad.interpret.analysis import ROLLOUT, Analysis, Subject
from ad.interpret.contexts import Contexts
from ad.interpret.hooks import hooked, point_names
from ad.interpret.labeled import Axes, LabeledArray
from ad.interpret.situations import in_situation, situation_names
from ad.models.sequence_model import SequenceModel
from ad.reporting.page import Table
from envs.extras import missing
from envs.oracle import knows_its_state
from envs.rng import derive_key
from envs.tasks import task_name

FITTED, SCORED = 3000, 3000  # decisions that a probe is fitted and scored on, at most
FEWEST = 20  # decisions from which a score is computed
MOST_CLASSES = 16  # values of a number that names a task, which is not probed with more
PROBES = ("linear", "MLP")
MLP_EPOCHS = 100
BASELINE = "observation, episode and time"
MOST_OBSERVATIONS = 1024  # that the baseline tells apart; of more, it has episode and time alone
EPISODE_BINS = (1, 2, 4, 8, 16, 32, 64)  # first episodes of the bins, from 1


@dataclass(frozen=True)
class Decisions:
    """n decisions: the features [n, C] of each stage, and arrays [n] by decision."""

    features: list[np.ndarray]
    observation: np.ndarray  # its bytes
    episode: np.ndarray  # from 1
    time: np.ndarray
    reward_seen: np.ndarray
    labels: dict[str, np.ndarray]  # classes are int64, numbers float64, NaN for unknown


class Probes(Analysis):
    """Scores of linear and MLP probes after each layer: task, distance, past rewards, situation."""

    sources: ClassVar[Sequence[str]] = (ROLLOUT,)
    reads_attention: ClassVar[bool] = False
    arrays: ClassVar[Axes] = {
        "scores": ("target", "stage", "probe"),
        "control": ("target", "stage", "probe"),
        "over_context": ("target", "stage", "probe", "decisions"),
        "chance": ("target",),
    }

    @classmethod
    def check(cls, subject):
        """Raise ConfigError with the reason if the subject cannot be analyzed."""
        if text := missing("interpret"):
            raise ConfigError(f"the analysis {text}")
        if not subject.model.reads_rewards:
            raise ConfigError("it probes for past rewards, and the model does not read any")
        super().check(subject)

    def run(self, subject):
        """Return the scores by target, stage and probe, of the control task, and over context."""
        model = subject.model
        fit = draw(subject, subject.train_contexts, FITTED)
        held_out = draw(subject, subject.contexts, SCORED)
        for decisions in (fit, held_out):
            decisions.features.insert(0, baseline_features(decisions, fit.observation))
        names = [n for n in fit.labels if is_probed(fit.labels[n], held_out.labels[n])]
        stages = [BASELINE, *stage_points(model)]
        axes = {"target": names, "stage": stages, "probe": list(PROBES)}
        last = held_out.episode.max()
        bins = [f"from episode {first}" for first in EPISODE_BINS if first <= last]
        groups = ["all", "found", "not found", *bins]
        scores = np.full((len(names), len(stages), len(PROBES), len(groups)), np.nan)
        control = np.full(scores.shape[:-1], np.nan)
        for index in np.ndindex(control.shape):
            name, stage, kind = names[index[0]], index[1], PROBES[index[2]]
            labels = [decisions.labels[name] for decisions in (fit, held_out)]
            scores[index] = probe_scores(fit, held_out, labels, stage, kind)[: len(groups)]
            controls = control_labels(fit, held_out, labels[0], name)
            control[index] = probe_scores(fit, held_out, controls, stage, kind)[0]
        about = "balanced accuracy of classes, R² of numbers, on held-out tasks"
        return {
            "scores": LabeledArray(scores[..., 0], axes, about),
            "control": LabeledArray(control, axes, f"{about}, of the control task"),
            "over_context": LabeledArray(
                scores[..., 1:], {**axes, "decisions": groups[1:]}, f"{about}, by decisions"
            ),
            "chance": LabeledArray(
                np.array([chance(held_out.labels[name]) for name in names]),
                {"target": names},
                "score without the activations",
            ),
        }

    def table(self, results):
        """Return the scores after each layer, with the score of the control task in brackets."""
        scores, control, chances = (results[n] for n in ("scores", "control", "chance"))
        stages = scores.axes["stage"]
        header = ["target", "probe", "chance", *stages]
        rows = []
        for target in scores.axes["target"]:
            for probe in PROBES:
                label = {"target": target, "probe": probe}
                pairs = zip(scores.at(**label), control.at(**label), strict=True)
                cells = [UNKNOWN if np.isnan(a) else f"{a:.2f} ({b:.2f})" for a, b in pairs]
                rows.append([target, probe, f"{chances.at(target=target):.2f}", *cells])
        return Table(header, rows)


def draw(subject: Subject, contexts: Contexts, count: int) -> Decisions:
    """Return `count` decisions of `contexts`, drawn at random, with all their labels."""
    place = np.flatnonzero(contexts.decided[:, 1:].flatten())
    rng = np.random.default_rng(derive_key(0, "interpret", "probes"))
    place = np.sort(rng.permutation(place)[:count])

    def at_place(values: np.ndarray) -> np.ndarray:
        return values[:, 1:].flatten()[place]

    labels = {
        **task_labels(subject, contexts),
        **decision_labels(subject, contexts),
        "found": contexts.reward_seen.astype(np.int64),
        "visited": contexts.visited.astype(np.int64),
    }
    return Decisions(
        [values[place] for values in activations(subject.model, contexts)],
        observation_bytes(subject, contexts, place),
        at_place(contexts.episode + 1),
        at_place(contexts.time),
        at_place(contexts.reward_seen),
        {name: at_place(values) for name, values in labels.items()},
    )


def baseline_features(decisions: Decisions, observations: np.ndarray) -> np.ndarray:
    """Return the features [n, F] of the stage BASELINE.

    They are the logarithm of the episode, the time, and one for each of the `observations`, unless
    these are more than MOST_OBSERVATIONS.
    """
    numbers = np.stack([np.log(decisions.episode), decisions.time], axis=1)
    known = np.unique(observations)
    if len(known) > MOST_OBSERVATIONS:
        return numbers
    return np.concatenate([numbers, decisions.observation[:, None] == known], axis=1)


def observation_bytes(subject: Subject, contexts: Contexts, place: np.ndarray) -> np.ndarray:
    """Return the observations of the decisions `place`, int64 [n] among the B * T, as bytes [n]."""
    fields = [name for name in subject.model.spec.observation_fields if "next" not in name]
    parts = [contexts.window[n].cpu().numpy()[:, 1:] for n in fields]
    rows = [part.reshape(-1, *part.shape[2:])[place].reshape(len(place), -1) for part in parts]
    joined = np.ascontiguousarray(np.concatenate(rows, axis=1), np.float64)
    return joined.view(f"S{joined.shape[1] * joined.itemsize}")[:, 0]


def task_labels(subject: Subject, contexts: Contexts) -> dict[str, np.ndarray]:
    """Return labels of the task, [B, T + 1] by name: its numbers, and the distance to a success.

    The distance, in env steps, needs a world whose observation is its state.
    """
    world, shape = subject.run.world, contexts.valid.shape
    by_name = {task_name(task): task for task in world.all_tasks()}
    tasks = np.array([by_name[name] for name in contexts.tasks])
    noun, numbers = world.task_noun, tasks[contexts.task]  # [B, D]
    labels = {
        f"{noun} {d}" if numbers.shape[1] > 1 else noun: np.broadcast_to(column[:, None], shape)
        for d, column in enumerate(numbers.T.astype(np.int64))
    }
    steps = world.steps_to_success(tasks)
    if steps is not None and world.states() is None and knows_its_state(world):
        steps = np.pad(steps, ((0, 0), (0, 1)), constant_values=np.nan)  # of no observation
        observation = contexts.window["observation"].cpu().numpy()
        labels["distance"] = steps[contexts.task[:, None], observation]
    return labels


def decision_labels(subject: Subject, contexts: Contexts) -> dict[str, np.ndarray]:
    """Return labels of decisions, [B, T + 1] by name: episode, asked return, time, situations.

    The episode, the last return and the decisions since a reward are of a context that spans
    episodes, the time is of a context that does not.
    """
    if subject.method.within_episodes:
        labels = {"time": contexts.time.astype(np.float64)}
    else:
        labels = {"episode": contexts.episode + 1.0} | past_rewards(contexts)
    if contexts.asked is not None:
        shape = contexts.valid.shape
        labels["asked return"] = np.broadcast_to(contexts.asked[:, None], shape)
    world = subject.run.world
    found = {name: in_situation(world, contexts, name) for name in situation_names(world)}
    return labels | {name: mask.astype(np.int64) for name, mask in found.items()}


def past_rewards(contexts: Contexts) -> dict[str, np.ndarray]:
    """Return two labels [B, T + 1] of what is in the window before each decision, NaN if nothing.

    They are the logarithm to base 2 of the decisions since the last reward above 0, and the return
    of the episode before the present one, if the window has the whole of it.
    """
    step, entry = contexts.window["step"].cpu().numpy(), np.arange(contexts.length + 1)
    reward, valid = contexts.reward, contexts.valid

    def newest(mask: np.ndarray) -> np.ndarray:
        """Return the last entry up to each that is in `mask`, -1 for none."""
        return np.maximum.accumulate(np.where(mask, entry, -1), axis=1)

    def at(values: np.ndarray, entries: np.ndarray) -> np.ndarray:
        return np.where(entries < 0, np.nan, np.take_along_axis(values, entries.clip(0), 1))

    rewarded = np.pad(newest(reward > 0)[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    begins = newest(valid & (contexts.time == 0) & (entry > 0))
    before = np.where(begins < 1, -1, np.take_along_axis(begins, (begins - 1).clip(0), 1))
    earned = np.cumsum(reward, axis=1) - reward
    last_return = at(earned, begins) - at(earned, before)
    last_return[at(step, begins) - at(step, before) != begins - before] = np.nan  # a gap
    since = step - at(step, rewarded)
    return {
        "decisions since a reward (log2)": np.log2(np.where(since > 0, since, np.nan)),
        "last return": last_return,
    }


def is_probed(labels: np.ndarray, held_out: np.ndarray) -> bool:
    """Return whether a probe can be fitted on `labels` and scored on the labels `held_out`.

    There must be several values. Classes must be at most MOST_CLASSES, and no held-out class new.
    """
    if labels.dtype.kind == "f":
        return len(np.unique(labels[np.isfinite(labels)])) > 1
    classes = np.unique(labels)
    return 2 <= len(classes) <= MOST_CLASSES and bool(np.isin(held_out, classes).all())


def stage_points(model: SequenceModel) -> dict[str, str]:
    """Return the points that are probed, in their order, by the names of the stages."""
    points = {"embedding": "blocks.0.hook_resid_pre"}
    for name in point_names(model.memory):
        if name.endswith(".hook_state"):
            points[f"state of layer {name.split('.')[1]}"] = name
        elif name.endswith(".hook_resid_post"):
            points[f"after layer {name.split('.')[1]}"] = name
    return points


def activations(model: SequenceModel, contexts: Contexts) -> np.ndarray:
    """Return what is at each stage at every decision, float32 [stages, B T, C]."""
    points, batches = tuple(stage_points(model).values()), []
    for batch in contexts.batches():
        with torch.inference_mode(), hooked(model, points) as values:
            model(batch.window)
        at_decisions = [model.tokenizer.at_decisions(values[point]) for point in points]
        batches.append(torch.stack(at_decisions).flatten(1, 2).float().cpu().numpy())
    return np.concatenate(batches, axis=1)


def control_labels(
    fit: Decisions, held_out: Decisions, labels: np.ndarray, name: str
) -> list[np.ndarray]:
    """Return labels that are a random function of the observation, drawn from `labels`."""
    cells = np.unique(np.concatenate([fit.observation, held_out.observation]))
    rng = np.random.default_rng(derive_key(0, "interpret", "control task", name))
    drawn = rng.choice(labels[np.isfinite(labels)], len(cells))
    return [drawn[np.searchsorted(cells, decisions.observation)] for decisions in (fit, held_out)]


def probe_scores(
    fit: Decisions, held_out: Decisions, labels: list[np.ndarray], stage: int, kind: str
) -> np.ndarray:
    """Return the scores of a probe on all held-out decisions, and on groups of them.

    `labels` are the labels of `fit` and of `held_out`. The groups are decisions with a reward seen,
    without one, and the bins of episodes. A score is NaN with fewer than FEWEST decisions, or a
    single class or number.
    """
    fitted, scored = (np.isfinite(values) for values in labels)
    probe = make_probe(kind, labels[0].dtype.kind == "f")
    if len(np.unique(labels[0][fitted])) < 2:
        return np.full(3 + len(EPISODE_BINS), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an iteration limit is one of the probe's settings
        probe.fit(fit.features[stage][fitted], labels[0][fitted])
    predicted = probe.predict(held_out.features[stage])
    ends = (*EPISODE_BINS[1:], np.inf)
    groups = [scored, scored & held_out.reward_seen, scored & ~held_out.reward_seen]
    groups += [
        scored & (first <= held_out.episode) & (held_out.episode < end)
        for first, end in zip(EPISODE_BINS, ends, strict=True)
    ]
    return np.array([score(labels[1][group], predicted[group]) for group in groups])


def make_probe(kind: str, is_number: bool):
    """Return an unfitted probe on standardized activations, of standardized numbers."""
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    settings = {"hidden_layer_sizes": (64,), "max_iter": MLP_EPOCHS, "random_state": 0}
    if kind == "linear":
        probe = Ridge() if is_number else LogisticRegression(class_weight="balanced", max_iter=200)
    else:
        probe = MLPRegressor(**settings) if is_number else MLPClassifier(**settings)
    if is_number:  # an MLP would need most of its epochs to reach the mean of large numbers
        probe = TransformedTargetRegressor(probe, transformer=StandardScaler())
    return make_pipeline(StandardScaler(), probe)


def score(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Return the balanced accuracy of int `labels` [n], or R² of floats."""
    if len(labels) < FEWEST or len(np.unique(labels)) < 2:
        return np.nan
    if labels.dtype.kind == "f":
        return 1 - ((labels - predicted) ** 2).mean() / labels.var()
    hits = [(predicted[labels == label] == label).mean() for label in np.unique(labels)]
    return float(np.mean(hits))


def chance(labels: np.ndarray) -> float:
    """Return the score of a guess: 0 for numbers, one over the number of classes."""
    return 0.0 if labels.dtype.kind == "f" else 1 / len(np.unique(labels))
