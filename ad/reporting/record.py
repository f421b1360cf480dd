"""Record videos of a run: the learning of source agents, and the frozen model on held-out goals.

A video shows three episodes side by side with their numbers and returns. Reads the histories and
`trajectories.npz`, writes `videos/<run>/source_<task>.mp4` and `videos/<run>/held_out_<task>.mp4`.
Files that already show the same frames are kept; other videos in the folder are removed.
"""

import os
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ad.data.episodes import episodes
from ad.data.histories import Histories
from ad.data.store import load_history
from ad.errors import ConfigError, CorruptError
from ad.reporting import video
from ad.runtime.run import Run
from envs.render import WALL, room_frames
from envs.tasks import task_name

MAX_WORKERS = 4  # videos made at once; each holds its frames, about 30 MB, three times
EARLY_DIVISOR = 10  # the second episode of a held-out video is number episodes // 10
HISTORY_FIELDS = ("observation", "next_observation", "reward", "terminated", "truncated")


@dataclass(frozen=True)
class EpisodeSequence:
    """Consecutive episodes on one task: transitions [T]; start, stop and return of episodes [E].

    stop is exclusive.
    """

    task: tuple[int, int]
    observation: np.ndarray
    next_observation: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    returns: np.ndarray


def record(run: Run) -> tuple[int, int]:
    """Record the videos that are missing or out of date; returns (number written, total number).

    Records nothing if the world is not a square room. Raises ConfigError if the run is not
    evaluated, CorruptError if a file is damaged, MachineError if ffmpeg is missing or fails.
    """
    settings, shape = run.config.record, run.world.observation_factors
    if len(shape) != 2 or shape[0] != shape[1]:
        return 0, 0
    total = min(settings.held_out_videos, len(run.split.held_out_tasks))
    total += len(run.split.train_tasks) * settings.source_videos
    threads, written = run.config.threads or os.cpu_count() or 1, {}
    with (
        tqdm(total=total, desc="record", unit=" videos", disable=None) as bar,
        ThreadPoolExecutor(min(threads, MAX_WORKERS)) as pool,
    ):
        try:
            futures = {
                path: pool.submit(_write, path, frames, settings.fps)
                for path, frames in _montages(run, shape[0])
            }
            for path, future in futures.items():
                written[path] = future.result()
                bar.update()
        finally:  # after an error or a signal, wait only for videos that are being written
            pool.shutdown(cancel_futures=True)
    for path in set(run.videos.glob("*.mp4")) - set(written):
        path.unlink()
    return sum(written.values()), len(written)


def rollout_episodes(path: Path, count: int) -> Iterator[EpisodeSequence]:
    """Yield the episodes of `count` held-out tasks, evenly spaced, from a `trajectories.npz`.

    Raises ConfigError if the file does not exist, CorruptError if it cannot be read.
    """
    fields = _load(path)
    rows = np.flatnonzero(fields["split"] == "held_out")
    for row in rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)]:
        episode = fields["episode"][row]
        played = episode >= 0
        _, start = np.unique(episode[played], return_index=True)
        stop = np.append(start[1:], played.sum())
        returns = np.add.reduceat(fields["reward"][row, played], start)
        transitions = (fields[name][row, played] for name in ("observation", "next_observation"))
        task = tuple(fields["task"][row].tolist())
        yield EpisodeSequence(task, *transitions, start, stop, returns)


def history_episodes(task: tuple[int, int], folder: Path) -> EpisodeSequence:
    """Load the episodes of the first actor of a history.

    Raises ConfigError if there is no whole episode.
    """
    arrays = {
        name: array[:1] for name, array in load_history(folder, HISTORY_FIELDS).arrays.items()
    }
    whole = episodes(arrays["terminated"] | arrays["truncated"], arrays["reward"])
    if len(whole.start) == 0:
        raise ConfigError(f"{folder} holds no whole episode to record: raise source.env_steps")
    transitions = (arrays["observation"][0], arrays["next_observation"][0])
    return EpisodeSequence(task, *transitions, whole.start, whole.stop, whole.returns)


def episode_montage(
    sequence: EpisodeSequence, chosen: set[int], title: str, size: int, fps: int
) -> np.ndarray:
    """Draw the `chosen` episodes side by side, frames [T, H, W, 3]; the last frame lasts 1 s."""
    panels = [_episode_frames(sequence, episode, size) for episode in sorted(chosen)]
    frames = video.add_caption(video.side_by_side(panels), title, size=19)
    frames = np.concatenate([frames, np.repeat(frames[-1:], fps, axis=0)])
    return video.add_margin(frames)


def _write(path: Path, frames: Callable[[], np.ndarray], fps: int) -> bool:
    return video.write_video(path, frames(), fps)


def _montages(run: Run, size: int) -> Iterator[tuple[Path, Callable[[], np.ndarray]]]:
    """Yield (path, function that draws the frames) of each video of `config.record`."""
    settings = run.config.record
    if settings.held_out_videos:
        path = run.folder / "trajectories.npz"
        for sequence in rollout_episodes(path, settings.held_out_videos):
            last = len(sequence.start) - 1
            chosen = {0, max((last + 1) // EARLY_DIVISOR - 1, 0), last}
            title = f"Frozen model on held-out goal {sequence.task}: one context, no training"
            frames = partial(episode_montage, sequence, chosen, title, size, settings.fps)
            yield run.videos / f"held_out_{task_name(sequence.task)}.mp4", frames
    if settings.source_videos:
        histories = Histories(run.config)
        for task in run.split.train_tasks:
            cell = tuple(task.tolist())
            frames = partial(_source_montage, cell, histories.folder(task), size, settings.fps)
            yield run.videos / f"source_{task_name(task)}.mp4", frames


def _source_montage(task: tuple[int, int], folder: Path, size: int, fps: int) -> np.ndarray:
    sequence = history_episodes(task, folder)
    last = len(sequence.start) - 1
    title = f"Source agent on train goal {task}: one of its actors while it trains"
    return episode_montage(sequence, {0, last // 2, last}, title, size, fps)


def _episode_frames(sequence: EpisodeSequence, episode: int, size: int) -> np.ndarray:
    """Draw one episode, frames [steps + 1, H, W, 3], with its number and return above them."""
    steps = slice(sequence.start[episode], sequence.stop[episode])
    cells = np.append(sequence.observation[steps], sequence.next_observation[steps][-1])
    frames = room_frames(size, cells.astype(np.int64), sequence.task)
    text = f"episode {episode + 1} of {len(sequence.start)} · return {sequence.returns[episode]:g}"
    return video.add_caption(video.add_margin(frames, 1, WALL[0]), text)


def _load(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        raise ConfigError(f"{path} does not exist: run `python -m scripts.evaluate` first")
    try:
        with np.load(path, allow_pickle=False) as file:
            names = ("split", "task", "episode", "reward", "observation", "next_observation")
            return {name: file[name] for name in names}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise CorruptError(f"{path} is not what evaluation writes: {error}") from error
