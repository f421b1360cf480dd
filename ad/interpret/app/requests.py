"""The requests of a page: checked here, and answered with plain types.

A bad request raises ConfigError with one sentence.
"""

import math
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from ad.errors import ConfigError
from ad.interpret import edits
from ad.interpret.analysis import Subject
from ad.interpret.app.session import UNTIL, Session
from ad.interpret.app.view import run_view, session_view
from ad.interpret.edits import Observation
from ad.runtime.run import Run
from envs.spaces import Discrete
from envs.tasks import SPLITS

Body = Mapping[str, object]  # of a request, from JSON

MOST_SESSIONS = 16  # kept at a time: the sessions that were used last
MOST_SUBJECTS = 4  # checkpoints in memory
MOST_STEPS = 40  # of the model for one request
MOST_SEED = 2**31


class App:
    """The sessions of all pages, by token.

    It computes with one thread, unless `threads` is set: a decision is too small for more, and
    threads that wait for each other are slow on a busy machine. Raises ConfigError for a world
    that cannot be stepped, and the errors of `Subject.load`.
    """

    def __init__(self, run: Run):
        if not run.world.can_be_stepped:
            raise ConfigError("the world of recorded histories cannot be stepped, nor played")
        self.run = Run(replace(run.config, threads=run.config.threads or 1))
        self.sessions: OrderedDict[str, Session] = OrderedDict()
        self.subjects: OrderedDict[int | None, Subject] = OrderedDict()
        self.routes = {"start": self.start, "act": self.act, "model": self.model}
        self.routes |= {"edit": self.edit, "ask": self.ask}
        self.load(None)

    def answer(self, route: str, body: Body) -> dict:
        """Return the answer to a request. Raises ConfigError for one that cannot be answered."""
        if route == "run":
            return run_view(self.run)
        if route not in self.routes:
            raise ConfigError(f"there is nothing at /{route}")
        return self.routes[route](body)

    def load(self, step: int | None) -> Subject:
        """Return the model of the checkpoint of train step `step`, None for the last one."""
        if step not in self.subjects:
            self.subjects[step] = Subject.load(self.run, step=step)
            while len(self.subjects) > MOST_SUBJECTS:
                self.subjects.popitem(last=False)
        self.subjects.move_to_end(step)
        return self.subjects[step]

    def start(self, body: Body) -> dict:
        """Begin a session: {checkpoint, split, task, seed}; the answer has its token."""
        split = body.get("split", "held_out")
        if split not in SPLITS:
            raise ConfigError(f"split must be {' or '.join(SPLITS)}")
        tasks: np.ndarray = getattr(self.run.split, f"{split}_tasks")
        task = tasks[_whole(body, "task", len(tasks) - 1)]
        seed = _whole(body, "seed", MOST_SEED)
        checkpoint = body.get("checkpoint")
        if checkpoint is not None and type(checkpoint) is not int:
            raise ConfigError("checkpoint must be the train step of one, or null for the last")
        token = secrets.token_urlsafe(16)
        subject = self.load(checkpoint)
        session = Session(subject.run, subject.method, subject.model, task, seed)
        self.sessions[token] = session
        while len(self.sessions) > MOST_SESSIONS:
            self.sessions.popitem(last=False)[1].env.close()
        return {"token": token} | session_view(session)

    def act(self, body: Body) -> dict:
        """Take an action: {token, action}."""
        session = self._session(body)
        session.act(_whole(body, "action", session.model.spec.num_actions - 1))
        return session_view(session)

    def model(self, body: Body) -> dict:
        """Let the model play: {token, until}; `done` says whether it reached that end."""
        session, until = self._session(body), body.get("until", "step")
        if until not in UNTIL:
            raise ConfigError(f"until must be {', '.join(UNTIL[:-1])} or {UNTIL[-1]}")
        done = session.play(until, MOST_STEPS)
        return session_view(session) | {"done": done}

    def ask(self, body: Body) -> dict:
        """Ask for another return: {token, value}."""
        session = self._session(body)
        session.ask(_number(body, "value"))
        return session_view(session)

    def edit(self, body: Body) -> dict:
        """Edit the history: {token, edit, index, …}, where `edit` is one of four.

        change has a new `action`, `reward`, `observation` or `next_observation` of the transition
        `index`; remove has the `index`; reset has the number of an `episode`; undo undoes all.
        """
        session, kind = self._session(body), body.get("edit")
        most = len(session.reader.history) - 1
        if kind == "undo":
            session.undo_edits()
        elif kind == "reset":
            number = _whole(body, "episode", int(session.reader.history.episode[-1]))
            session.edit(partial(edits.reset_episode, number=number))
        elif kind == "remove":
            session.edit(partial(edits.remove, indices=[_whole(body, "index", most)]))
        elif kind == "change":
            index = _whole(body, "index", most)
            session.edit(partial(edits.change, index=index, **_changes(session, body)))
        else:
            raise ConfigError("edit must be change, remove, reset or undo")
        return session_view(session)

    def _session(self, body: Body) -> Session:
        token = body.get("token")
        if not isinstance(token, str) or token not in self.sessions:
            raise ConfigError("the session is not there any more: start again")
        self.sessions.move_to_end(token)
        return self.sessions[token]


def _changes(session: Session, body: Body) -> dict:
    """Return the arguments of `edits.change` that a request has."""
    spec, arguments = session.model.spec, {}
    if "action" in body:
        arguments["action"] = _whole(body, "action", spec.num_actions - 1)
    if "reward" in body:
        arguments["reward"] = _number(body, "reward")
    for role in ("observation", "next_observation"):
        if role in body:
            arguments[role] = _observation(body[role], spec.observation)
    if not arguments:
        raise ConfigError("a change needs an action, a reward or an observation")
    return arguments


def _observation(value: object, parts: Mapping) -> Observation:
    """Return the discrete observation that a list of whole numbers names.

    The list holds the index alone, or the numbers of a cell, e.g. its row and column.
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
    return {"": np.int64(np.ravel_multi_index(value, sizes))}


def _whole(body: Body, name: str, most: int) -> int:
    value = body.get(name, 0 if name in ("task", "seed") else None)
    if type(value) is not int or not 0 <= value <= most:
        none = most < 0
        raise ConfigError(
            f"there is no {name} yet" if none else f"{name} must be a whole number from 0 to {most}"
        )
    return value


def _number(body: Body, name: str) -> float:
    value = body.get(name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or abs(value) > 1e6 or not math.isfinite(value):
        raise ConfigError(f"{name} must be a number of at most a million")
    return float(value)
