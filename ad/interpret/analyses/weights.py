"""Embeddings as contributions to directions: weights of the state, the asked return, the time.

The output layer reads the residual stream, so what an embedding adds to the token of a decision
adds its product with a direction to that preference, without attention and MLPs. A linear encoder
has a weight for each feature, a channel of a cell. The channels of a cell of MiniGrid are its
objects, colors and states, or three numbers that multiply the weights; the weight of a thing, e.g.
a green goal, is what its channels add up to. A cell is named by its row and column as the view is
drawn: the agent looks up from the middle of the last row.

For all encoders of arrays, also those that are not linear, the output of the whole model is
attributed to the features of the last observation: gradient x input, and integrated gradients
(Sundararajan et al. 2017, arXiv 1703.01365), from a view of empty cells, or from 0.

A layer normalization is folded into the weights after it, and linearized at its mean scale.
"""

import itertools

import numpy as np
import torch
from torch import nn

from ad.interpret.analyses import linear
from ad.interpret.analyses.static import embedding_tables
from ad.interpret.analysis import Analysis, Subject, texts
from ad.interpret.contexts import Contexts
from ad.interpret.labeled import LabeledArray, Results
from ad.models.encoders.base import TabularEncoder
from ad.models.sequence_model import SequenceModel
from ad.reporting.page import Table
from envs.minigrid.encoding import COLORS, OBJECTS, STATES, cells_in, shows_cells
from envs.spaces import Part

STEPS = 64  # of integrated gradients: attention may turn within a hundredth of the way
METHODS = ["gradient x input", "integrated gradients"]
TERMS = ["1 more", "at 0"]  # of the embedding of a further input, which is linear


class Weights(Analysis):
    """Weights of the embeddings for each direction: cells, objects, colors, asked return, time."""

    def run(self, subject):
        """Return the products of the embeddings with the directions, and attributions to inputs."""
        return embedded(subject) | attributions(subject)

    def table(self, results):
        """Return the weights of things in front, the asked return, the time, strong features."""
        directions, rows = linear.shown_directions(next(iter(results.values()))), []

        def add(label: str, array: LabeledArray, **at) -> None:
            values = [float(array.at(direction=name, **at)) for name in directions]
            rows.append([label, *texts(values, "+.3f")])

        for name, array in results.items():
            kind, _, part = name.partition("-")
            if kind == "in_front":
                for thing in array.axes["thing"]:
                    add(f"{thing} in front {part}".strip(), array, thing=thing)
            elif kind == "state" or (kind == "attributed" and "state" + name[10:] not in results):
                at = {} if kind == "state" else {"method": METHODS[1]}
                for feature in linear.strongest(array, direction=directions[-1], **at):
                    label = "{channel} at {cell}".format(**feature)
                    add(" ".join(filter(None, [label, part, *at.values()])), array, **feature, **at)
            elif "term" in array.axes:
                add(f"{name.replace('_', '-')}, 1 more", array, term=TERMS[0])
            elif "position" in array.axes:
                for place in (array.axes["position"][0], array.axes["position"][-1]):
                    add(f"{name} {place}", array, position=place)
        return Table(["", *directions], rows)


def embedded(subject: Subject) -> Results:
    """Return the products of the embeddings with the directions."""
    model, directions = subject.model, linear.directions_of(subject)
    note, results = linear.linear_note(model), {}

    def add(name: str, values: torch.Tensor, axes: dict, about: str = "") -> None:
        axes = {"direction": list(directions), **axes}
        results[name] = linear.labeled(values, axes, f"{about or name}: part in a direction{note}")

    with torch.no_grad():
        scales = linear.mean_scales(model, linear.spread(subject.contexts))
        read = linear.readout(model, directions, scales)
        for part, features in linear.features_of(model).items():
            _add_weights(add, subject, part, features, read)
        for name, vectors in linear.input_vectors(model).items():
            add(name, read @ vectors.T, {"term": TERMS})
        for name, table in embedding_tables(model.tokenizer).items():
            if not name.startswith("observation"):
                axis = name if name == "position" else "row"
                own = getattr(model.tokenizer.position, "term", name) if axis == name else name
                add(own, read @ table.T, {axis: list(range(len(table)))})
    return results


def _add_weights(add, subject: Subject, part: str, features: linear.Features, read) -> None:
    """Add the weights of features and things by cell, and those of the cell in front."""
    suffix, by_cell = f"-{part}" if part else "", {"cell": features.cells}
    values = torch.einsum("kpc,nc->nkp", features.vectors, read)
    add(f"state{suffix}", values, {"channel": features.channels, **by_cell}, "channel of a cell")
    if things := linear.things_in(subject.contexts, part, subject.model):
        values = torch.einsum("tpc,nc->ntp", linear.thing_vectors(features, things.values()), read)
        add(f"things{suffix}", values, {"thing": [*things], **by_cell}, "what a cell shows")
        if front := linear.front_cell(subject, part):
            place, about = features.cells.index(front), "what the cell in front of the agent shows"
            add(f"in_front{suffix}", values[..., place], {"thing": [*things]}, about)
            every = [(n, m, 0) for n in range(len(OBJECTS)) for m in range(len(COLORS))]
            values = read @ linear.thing_vectors(features, every)[:, place].T
            axes = {"object": list(OBJECTS), "color": list(COLORS)}
            values = values.unflatten(1, (len(OBJECTS), len(COLORS)))
            add(f"object_color{suffix}", values, axes, f"{about}, its state being {STATES[0]}")


def attributions(subject: Subject) -> Results:
    """Return attributions to the features of each array among the observations."""
    model, results = subject.model, {}
    sample, directions = linear.spread(subject.contexts), linear.directions_of(subject)
    chosen = torch.stack(list(directions.values())).T
    for part, encoder in zip(model.tokenizer.parts, model.tokenizer.encoders, strict=True):
        if isinstance(encoder, TabularEncoder):
            continue
        channels, cells = linear.layout(model.spec.observation[part], encoder)
        base = blank(model.spec.observation[part])
        found = [attributed(model, batch, encoder, base) @ chosen for batch in sample.batches()]
        values = torch.cat(found, 1).mean(1).unflatten(1, (len(cells), len(channels)))
        axes = {"method": METHODS, "direction": list(directions), "channel": channels}
        results[f"attributed-{part}".strip("-")] = linear.labeled(
            values.permute(0, 3, 2, 1),  # of [2, cells, channels, N]
            axes | {"cell": cells},
            "attribution of the whole model's output to a channel of a cell: mean over decisions",
        )
    return results


def blank(part: Part) -> torch.Tensor:
    """Return an observation of empty cells, or of zeros if a part shows no cells: [*shape]."""
    values = np.zeros(part.shape, part.window_dtype)
    if shows_cells(part):
        values[...] = cells_in(part.shape[2], linear.EMPTY)
    return torch.from_numpy(values)


def attributed(
    model: SequenceModel, batch: Contexts, encoder: nn.Module, base: torch.Tensor
) -> torch.Tensor:
    """Return the attributions of the outputs at the last decisions to its observation.

    They are METHODS with respect to the F inputs of the first linear map of `encoder`, less those
    of the observation `base` [*shape]: float [2, B, F, A]. Integrated gradients sum to the
    difference of the outputs at the observation and at `base`.
    """
    rows, last = torch.arange(len(batch)), batch.last - 1
    first_map, observed = linear.first_map(encoder), torch.empty(0)

    def outputs(replacement: torch.Tensor | None = None) -> torch.Tensor:
        calls = itertools.count()

        def hook(module, arguments):
            nonlocal observed
            if next(calls):  # the observations of the decisions are embedded before other roles
                return None
            inputs = arguments[0].reshape(len(batch), batch.length, -1).clone()
            observed = inputs[rows, last]
            if replacement is not None:
                inputs[rows, last] = replacement
            return (inputs.reshape(arguments[0].shape),)

        with first_map.register_forward_pre_hook(hook):
            return model(batch.window)[rows, last]

    def keep(module, arguments):
        nonlocal observed
        observed = arguments[0].flatten()

    with first_map.register_forward_pre_hook(keep):
        encoder(base[None])
    start = observed
    outputs()
    seen, gradients = observed, []
    for missing in (0.0, *((np.arange(STEPS) + 0.5) / STEPS)):
        point = seen + missing * (start - seen)
        gradients.append(torch.autograd.functional.jacobian(lambda x: outputs(x).sum(0), point))
    gradients = torch.stack(gradients)  # [1 + STEPS, A, B, F]
    means = torch.stack([gradients[0], gradients[1:].mean(0)])
    return (means * (seen - start)).permute(0, 2, 3, 1)
