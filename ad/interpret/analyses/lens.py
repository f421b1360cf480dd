"""The logit lens: what the model would do if it stopped after a layer.

The final normalization and the head read the residual stream after each attention and each MLP, in
place of the last one (nostalgebraist 2020, "interpreting GPT: the logit lens").
"""

from typing import ClassVar

import torch

from ad.data.episodes import ratio
from ad.interpret.analysis import Analysis, compared, texts
from ad.interpret.contexts import Contexts
from ad.interpret.hooks import Point, hooked
from ad.interpret.labeled import Axes, LabeledArray
from ad.models.memories.blocks import Block, Blocks
from ad.models.sequence_model import SequenceModel
from ad.reporting.page import Table


class Lens(Analysis):
    """Divergence of the action probabilities after each layer from the final ones."""

    reads_attention: ClassVar[bool] = False
    reads_outputs: ClassVar[bool] = True
    arrays: ClassVar[Axes] = {
        "divergence": ("stage",),
        "divergence_by_episode": ("episode", "stage"),
        "agreement": ("stage",),
        "agreement_by_episode": ("episode", "stage"),
    }

    def run(self, subject):
        """Return `divergence` (nats) and `agreement`, by stage, and both by episode."""

        def measure(batch: Contexts) -> dict[str, torch.Tensor]:
            final, *stages = stage_logits(subject.model, batch)
            return {"stages": torch.stack([compared(final, logits) for logits in stages], 2)}

        sums = subject.contexts.sums(measure)
        sums, counts = sums["stages"], sums["count"][..., None, None]  # [K, E, stages, 2]
        axes = {"stage": stage_names(subject.model)}
        by_episode = {"episode": list(range(1, len(sums[0]) + 1)), **axes}
        sums[..., 1] = counts[..., 0] - sums[..., 1]  # decisions with the same best action
        over_all, of_episodes = (ratio(sums.sum(a), counts.sum(a)) for a in ((0, 1), 0))
        abouts = {
            "divergence": "KL divergence of the stage's action probabilities from the final, nats",
            "agreement": "share of decisions whose most likely action is the final one",
        }
        results = {}
        for number, (name, about) in enumerate(abouts.items()):
            results[name] = LabeledArray(over_all[..., number], axes, about)
            if len(of_episodes) > 1:
                values = of_episodes[..., number]
                results[f"{name}_by_episode"] = LabeledArray(values, by_episode, about)
        return results

    def table(self, results):
        """Return both numbers of each stage, and the agreement in the first and last episode."""
        columns = [results["divergence"].values, results["agreement"].values]
        header = ["stage", "divergence (nats)", "agreement"]
        if "agreement_by_episode" in results:
            columns += list(results["agreement_by_episode"].values[[0, -1]])
            header += ["in episode 1", "in the last episode"]
        rows = [
            [stage, *texts(numbers, ".3f")]
            for stage, *numbers in zip(results["agreement"].axes["stage"], *columns, strict=True)
        ]
        return Table(header, rows)


def stage_names(model: SequenceModel) -> list[str]:
    """Return the stages: the embedding, then attention (or a GRU) and MLP of each layer."""
    mixers = ("attention" if b.mixer == "attn" else b.mixer for b in _blocks(model))
    layers = enumerate(mixers)
    return ["embedding", *(f"{part} {n}" for n, mixer in layers for part in (mixer, "mlp"))]


def _blocks(model: SequenceModel) -> list[Block]:
    assert isinstance(model.memory, Blocks)  # as `check` has said
    return model.memory.in_turn


def stage_logits(model: SequenceModel, batch: Contexts) -> list[torch.Tensor]:
    """Return the model's logits [B, T, A], and those after each stage."""
    layers = range(len(_blocks(model)))
    names = [f"blocks.{layer}.hook_resid_{part}" for layer in layers for part in ("mid", "post")]
    names = ["blocks.0.hook_resid_pre", *names]
    with torch.inference_mode():
        with hooked(model, tuple(names)) as values:
            final = model(batch.window)
        return [final, *(_logits_of(model, batch, values[name]) for name in names)]


def _logits_of(model: SequenceModel, batch: Contexts, residual: torch.Tensor) -> torch.Tensor:
    """Return the logits of a residual stream [B, L, C] in place of the last one."""

    def replaced(value: torch.Tensor, point: Point) -> torch.Tensor:
        return residual[:, point.start :][:, : value.shape[1]]  # of a segment

    last = f"blocks.{len(_blocks(model)) - 1}.hook_resid_post"
    with hooked(model, write={last: replaced}):
        return model(batch.window)
