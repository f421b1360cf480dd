"""Write the page `logs/<run>/demo.html`, in which the frozen model of a run plays a dark room.

The page holds the model's weights and computes its forward pass in JavaScript (`demo_model.js`), so
that it needs no other file and no network. A reader puts the goal into a cell and watches episodes
become shorter. `demo_model.js` says what the data of the page is.
"""

import base64
from pathlib import Path

import numpy as np
import torch

from ad.errors import ConfigError
from ad.evaluation.evaluate import load_model
from ad.methods.algorithm_distillation import AlgorithmDistillation
from ad.models.encoders.base import TabularEncoder
from ad.models.memories.transformer import Transformer
from ad.models.positions import EnvTime, HistoryIndex, WindowIndex
from ad.models.sequence_model import SequenceModel
from ad.models.tokenizer import FusedTokens
from ad.registry import ENCODERS, MEMORIES, METHODS, POSITIONS, TOKENIZERS
from ad.reporting.page import render
from ad.runtime.files import write_text
from ad.runtime.run import Run
from envs.grid.dark_room import DarkRoom

PAGE, TEMPLATE = "demo.html", Path(__file__).parent / "demo.html.j2"
MOST_BYTES = 2_000_000
POSITION_FIELDS = {EnvTime: "time", WindowIndex: "index", HistoryIndex: "step"}
SUPPORTED = (
    "the demo is for algorithm distillation in dark rooms with a transformer that has fused "
    "tokens, an encoder of cells by a table, normalization, and a table of positions"
)


class UnsupportedError(ConfigError):
    """The page cannot play this world or this model."""


def write_demo(run: Run) -> Path:
    """Write the page of the trained model of `run` and return its path.

    Raises UnsupportedError for a run that the page cannot play, and the errors of `load_model`.
    """
    _check(run)
    write_text(run.folder / PAGE, demo_html(run, load_model(run).cpu()))
    return run.folder / PAGE


def demo_html(run: Run, model: SequenceModel) -> str:
    """Return the page of `model`, on the CPU. Raises UnsupportedError if it is too large."""
    world, parameters = _world_data(run, model), sum(p.numel() for p in model.parameters())
    html = render(
        TEMPLATE,
        {"model": _model_data(run, model), "world": world},
        name=run.config.name,
        world=world,
        context=run.config.data.context_length,
        greedy=run.config.evaluation.action == "greedy",
        parameters=f"{parameters:,}",
    )
    if (size := len(html.encode())) > MOST_BYTES:
        raise UnsupportedError(
            f"the page of a model with {parameters:,} weights would have {size / 1e6:.1f} MB, and "
            f"the most is {MOST_BYTES / 1e6:g} MB"
        )
    return html


def _check(run: Run) -> None:
    """Raise UnsupportedError, with the setting that does not fit, unless the page can play."""
    config, position = run.config.model, POSITIONS.load(run.config.model.position)
    is_fitting = {
        "env.id": type(run.world) is DarkRoom,
        "method.name": METHODS.load(run.config.method.name) is AlgorithmDistillation,
        "model.tokenizer": TOKENIZERS.load(config.tokenizer) is FusedTokens,
        "model.memory": MEMORIES.load(config.memory) is Transformer,
        "model.norm": config.norm == "pre",
        "model.position": position in POSITION_FIELDS,
        "model.encoder": issubclass(ENCODERS.load(config.encoder_of("")), TabularEncoder),
    }
    for name, fits in is_fitting.items():
        if not fits:
            section, setting = name.split(".")
            value = getattr(getattr(run.config, section), setting)
            raise UnsupportedError(f"{SUPPORTED}; {name} is {value}")


def _model_data(run: Run, model: SequenceModel) -> dict:
    config, settings = run.config.model, run.config.evaluation
    arrays = {name: tensor.numpy().ravel() for name, tensor in _tensors(run, model).items()}
    ends = np.cumsum([array.size for array in arrays.values()]).tolist()
    weights = np.concatenate(list(arrays.values())).astype("<f4").tobytes()
    return {
        "weights": base64.b64encode(weights).decode(),
        "tensors": {
            name: [end - array.size, array.size]
            for (name, array), end in zip(arrays.items(), ends, strict=True)
        },
        "layers": config.layers,
        "heads": config.heads,
        "context": run.config.data.context_length,
        "position": POSITION_FIELDS[POSITIONS.load(config.position)],
        "greedy": settings.action == "greedy",
        "temperature": settings.temperature,
        "temperature_known": settings.temperature_known,
    }


def _tensors(run: Run, model: SequenceModel) -> dict[str, torch.Tensor]:
    """Return the parameters of memory and head, and a table [rows, C] of each term of a token.

    Cells have a row for "no cell", actions one for "no action", and rewards those of 0, 1 and none.
    """
    tokenizer = model.tokenizer
    encoder, reward = tokenizer.encoders[0], tokenizer.reward
    assert isinstance(tokenizer, FusedTokens) and isinstance(encoder, TabularEncoder)
    assert reward is not None  # `check` has refused any other model
    cells, position = encoder.table(), tokenizer.position.vectors
    next_proj = tokenizer.next_obs_proj
    tables = {
        "now": cells,
        "previous": tokenizer.prev_obs_proj(cells),
        "next": torch.zeros_like(cells) if next_proj is None else next_proj(cells),
        "action": tokenizer.action.weight,
        "reward": reward(torch.tensor([0.0, 1.0, torch.nan])),
        "position": getattr(position, "weight", position),
    }
    if run.config.model.position == "window":
        tables["position"] = tables["position"][: run.config.data.context_length]
    head = {f"head.{name}": tensor for name, tensor in model.head.state_dict().items()}
    return tables | model.memory.state_dict() | head


def _world_data(run: Run, model: SequenceModel) -> dict:
    """Return the room, and of each goal whether it is trained on, and its optimum, by its cell.

    The first goal is held out, and of median distance from the start.
    """
    world, length, goals = run.world, model.spec.episode_length, run.world.all_tasks()
    cells, held_out = goals @ [world.shape[1], 1], run.split.held_out_tasks
    train, shortest = run.split.train_tasks.tolist(), world.shortest_episode(goals)
    by_distance = held_out[np.argsort(world.shortest_episode(held_out), kind="stable")]
    first = by_distance[len(by_distance) // 2] @ [world.shape[1], 1]
    optima = zip(world.optimal_return(goals, length).tolist(), shortest.tolist(), strict=True)
    return {
        "shape": world.shape,
        "actions": world.action_names,
        "successors": world.successors().tolist(),
        "starts": world.start_observations().tolist(),
        "goal_on_start": world.goal_on_start,
        "pays_once": world.pays_once,
        "terminate": world.terminate,
        "episode_length": length,
        "first_goal": int(first),
        "goals": {
            int(cell): {"train": goal in train, "optimal_return": optimum, "shortest": steps}
            for cell, goal, (optimum, steps) in zip(cells, goals.tolist(), optima, strict=True)
        },
    }
