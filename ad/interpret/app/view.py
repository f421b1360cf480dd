"""The view of a session on the page, as plain types: the world, the decision, the context."""

import base64
import hashlib
import io

import numpy as np
from PIL import Image

from ad.data.episodes import episodes
from ad.errors import ConfigError
from ad.interpret.analysis import check_model
from ad.interpret.app.session import Session
from ad.interpret.edits import Observation, Reader, Transition, best_two, explain
from ad.interpret.labeled import Results
from ad.methods.action_values import ActionValueModel
from ad.rollout.rollout import allowed_logits
from ad.rollout.tasks import sampling_temperature
from ad.runtime.run import Run
from ad.training import checkpoints
from envs.spaces import Array, Discrete
from envs.tasks import SPLITS

DIGITS = 6  # after the point
MOST_NUMBERS = 4  # of an array that are shown


def run_view(run: Run) -> dict:
    """Return the choices of the page: train steps of checkpoints, tasks by split."""
    world, split = run.world, run.split
    tasks = {name: world.names(getattr(split, f"{name}_tasks")) for name in SPLITS}
    return {
        "name": run.config.name,
        "checkpoints": checkpoints.steps(run.folder / "checkpoints")[::-1],
        "tasks": tasks,
        "task_noun": world.task_noun,
    }


def session_view(session: Session) -> dict:
    """Return everything that the page shows of a session."""
    return {
        **_world(session),
        **_decision(session),
        **_inside(session),
        "context": _context(session),
        "edited": session.edited is not None,
    }


def _world(session: Session) -> dict:
    """Return the picture, the time, and the episodes so far."""
    history, spec = session.played.history, session.model.spec
    frame = session.frame()
    ended = np.array([[step.ended for step in history.transitions]], bool)
    rewards = np.array([[step.reward for step in history.transitions]], np.float64)
    whole = episodes(ended, rewards)
    return {
        "image": None if frame is None else _png(frame),
        "observation": _text(history.observation, spec.observation),
        "episode": int(history.episode[-1]),
        "time": int(history.time[-1]),
        "episode_length": session.config.env.episode_length,
        "returns": _numbers(whole.returns),
        "lengths": (whole.stop - whole.start).tolist(),
        "last": [_outcome(step) for step in history.transitions[-1:]],
    }


def _outcome(step: Transition) -> dict:
    return {"action": step.action, "reward": round(step.reward, DIGITS), "ended": step.ended}


def _decision(session: Session) -> dict:
    """Return the policy's probabilities at the present decision, and the asked return."""
    names, spec = session.run.world.action_names, session.model.spec
    numbers, (low, high) = range(spec.num_actions), spec.return_range
    mask = np.ones((1, len(numbers)), bool) if session.mask is None else session.mask
    return {
        "actions": [names[n] if n < len(names) else f"action {n}" for n in numbers],
        "allowed": mask[0].tolist(),
        "probabilities": _numbers(_probabilities(session, session.reader)),
        "probabilities_before": _numbers(_probabilities(session, session.played)),
        "model_action": session.model_action(),
        "asked": None
        if session.asked is None
        else {"value": session.asked, "low": low, "high": high},
    }


def _inside(session: Session) -> dict:
    """Return what the model computes; `inside` is empty, or says why that cannot be shown."""
    model, mask = session.model, None if session.mask is None else session.mask[0]
    try:
        check_model(model)
    except ConfigError as error:
        return {"inside": f"The model's computation is not shown: {error}."}
    after = explain(model, session.reader.contexts(), mask)
    best, second = best_two(after["outputs"].values, mask)
    before = after
    if session.edited is not None:
        before = explain(model, session.played.contexts(), mask, (best, second))
    is_value = isinstance(model, ActionValueModel) and model.q_head is None
    attention = after["attention"]
    return {
        "inside": "",
        "output": "action value" if is_value else "logit",
        "best": best,
        "second": second,
        "heads": attention.axes["head"],
        "relations": attention.axes["relation"],
        "component_names": after["components"].axes["component"],
        **_arrays(after, ""),
        **_arrays(before, "_before"),
    }


def _arrays(explained: Results, suffix: str) -> dict:
    return {f"{name}{suffix}": _numbers(array.values) for name, array in explained.items()}


def _probabilities(session: Session, reader: Reader) -> np.ndarray:
    """Return the probabilities with which each action is sampled, [A]."""
    logits = allowed_logits(reader.logits, session.mask)[0]
    scaled = (logits - logits.max()) / sampling_temperature(session.config.evaluation)
    return np.exp(scaled) / np.exp(scaled).sum()


def _context(session: Session) -> list[dict]:
    """Return the transitions of the model's context in order."""
    reader = session.reader
    entries, history = reader.entries(), reader.history
    played = set(map(id, session.played.history.transitions))
    parts, episode, time = reader.spec.observation, history.episode, history.time
    rows = []
    for index in entries[:-1][entries[:-1] >= 0].tolist():
        step = history.transitions[index]
        rows.append(
            {
                "index": index,
                "episode": int(episode[index]),
                "time": int(time[index]),
                "observation": _text(step.observation, parts),
                "next_observation": _text(step.next_observation, parts),
                **_outcome(step),
                "edited": id(step) not in played,
            }
        )
    return rows


def _text(observation: Observation, parts: dict[str, Discrete | Array]) -> str:
    """Return an observation as text: a cell as its row and column, a large array as its hash."""
    texts = []
    for name, part in parts.items():
        value = observation[name]
        if isinstance(part, Discrete) and len(part.factors) > 1:
            numbers = np.unravel_index(int(value), part.factors)
            text = f"({', '.join(str(int(number)) for number in numbers)})"
        elif np.size(value) <= MOST_NUMBERS:
            text = ", ".join(f"{number:g}" for number in np.ravel(value))
        else:
            text = f"image {_short_hash(value)}"
        texts.append(f"{name} {text}" if name else text)
    return "; ".join(texts)


def _short_hash(value: np.ndarray) -> str:
    """Return four characters that differ for most different arrays."""
    return hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()[:4]


def _numbers(values: np.ndarray) -> list:
    """Return numbers for JSON, which has no NaN and no infinity: null."""
    rounded = np.round(np.asarray(values, np.float64), DIGITS)
    return np.where(np.isfinite(rounded), rounded, None).tolist()


def _png(frame: np.ndarray) -> str:
    """Return a picture as a data URL."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "png", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
