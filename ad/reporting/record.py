"""Videos of a run: how each source agent learned, and how the frozen model does on held-out goals.

Each shows three episodes side by side with their numbers and returns. Reads the histories and
`trajectories.npz`, writes `videos/<run>/source_<task>.mp4` and `videos/<run>/held_out_<task>.mp4`;
those that already show the same are kept, those of tasks that are gone are removed.
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

MOST_AT_ONCE = 4  # videos in the making: each holds its frames, some 30 MB, three times
EARLY = 10  # a held-out video shows the first episode, the one a tenth of the way, and the last
HISTORY = ("observation", "next_observation", "reward", "terminated", "truncated")


@dataclass(frozen=True)
class EpisodeSequence:
    """Episodes in a row on one task: fields [T]; start, stop and return of each episode."""

    task: tuple[int, int]
    observation: np.ndarray
    next_observation: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    returns: np.ndarray


def record(run: Run) -> tuple[int, int]:
    """Make the videos that are missing or out of date: (how many were written, how many are there).

    None are made of a world that is no square room. Raises ConfigError if the run is not evaluated
    yet, CorruptError for files that cannot be read, MachineError without an ffmpeg that works.
    """
    settings, shape = run.config.record, run.world.observation_factors
    if len(shape) != 2 or shape[0] != shape[1]:
        return 0, 0
    total = min(settings.held_out_videos, len(run.split.held_out_tasks))
    total += len(run.split.train_tasks) * settings.source_videos
    threads, made = run.config.threads or os.cpu_count() or 1, {}
    with (
        tqdm(total=total, desc="record", unit=" videos", disable=None) as bar,
        ThreadPoolExecutor(min(threads, MOST_AT_ONCE)) as pool,
    ):
        try:
            making = {
                path: pool.submit(_write, path, frames, settings.fps)
                for path, frames in _montages(run, shape[0])
            }
            for path, written in making.items():
                made[path] = written.result()
                bar.update()
        finally:  # an error or a signal waits for the videos in the making, not for the others
            pool.shutdown(cancel_futures=True)
    for path in set(run.videos.glob("*.mp4")) - set(made):
        path.unlink()
    return sum(made.values()), len(made)


def rollout_episodes(path: Path, count: int) -> Iterator[EpisodeSequence]:
    """The held-out lanes of a `trajectories.npz`, `count` of them, spread evenly over the tasks."""
    fields = _load(path)
    lanes = np.flatnonzero(fields["split"] == "held_out")
    for lane in lanes[np.linspace(0, len(lanes) - 1, min(count, len(lanes))).round().astype(int)]:
        episode = fields["episode"][lane]
        real = episode >= 0
        _, start = np.unique(episode[real], return_index=True)
        stop = np.append(start[1:], real.sum())
        returns = np.add.reduceat(fields["reward"][lane, real], start)
        transitions = (fields[name][lane, real] for name in ("observation", "next_observation"))
        yield EpisodeSequence(
            tuple(fields["task"][lane].tolist()), *transitions, start, stop, returns
        )


def history_episodes(task: tuple[int, int], folder: Path) -> EpisodeSequence:
    """The first stream of a history. Raises ConfigError if it holds no whole episode."""
    arrays = {name: array[:1] for name, array in load_history(folder, HISTORY).arrays.items()}
    whole = episodes(arrays["terminated"] | arrays["truncated"], arrays["reward"])
    if len(whole.start) == 0:
        raise ConfigError(f"{folder} holds no whole episode to draw: raise source.env_steps")
    transitions = (arrays["observation"][0], arrays["next_observation"][0])
    return EpisodeSequence(task, *transitions, whole.start, whole.stop, whole.returns)


def episode_montage(
    stream: EpisodeSequence, chosen: set[int], title: str, size: int, fps: int
) -> np.ndarray:
    """The `chosen` episodes side by side, frames [T, H, W, 3]; the end is held for a second."""
    panels = [_episode_frames(stream, episode, size) for episode in sorted(chosen)]
    frames = video.add_caption(video.side_by_side(panels), title, size=19)
    frames = np.concatenate([frames, np.repeat(frames[-1:], fps, axis=0)])
    return video.add_margin(frames)


def _write(path: Path, frames: Callable[[], np.ndarray], fps: int) -> bool:
    return video.write_video(path, frames(), fps)


def _montages(run: Run, size: int) -> Iterator[tuple[Path, Callable[[], np.ndarray]]]:
    """(file, what makes its frames) of every video that is wanted."""
    settings = run.config.record
    if settings.held_out_videos:
        path = run.folder / "trajectories.npz"
        for stream in rollout_episodes(path, settings.held_out_videos):
            last = len(stream.start) - 1
            chosen = {0, max((last + 1) // EARLY - 1, 0), last}
            title = f"Frozen model on held-out goal {stream.task}: one context, no training"
            frames = partial(episode_montage, stream, chosen, title, size, settings.fps)
            yield run.videos / f"held_out_{task_name(stream.task)}.mp4", frames
    if settings.source_videos:
        histories = Histories(run.config)
        for task in run.split.train_tasks:
            cell = tuple(task.tolist())
            frames = partial(_source_montage, cell, histories.folder(task), size, settings.fps)
            yield run.videos / f"source_{task_name(task)}.mp4", frames


def _source_montage(task: tuple[int, int], folder: Path, size: int, fps: int) -> np.ndarray:
    stream = history_episodes(task, folder)
    last = len(stream.start) - 1
    title = f"Source agent on train goal {task}: one of its actors while it trains"
    return episode_montage(stream, {0, last // 2, last}, title, size, fps)


def _episode_frames(stream: EpisodeSequence, episode: int, size: int) -> np.ndarray:
    """One episode as frames [steps + 1, H, W, 3], with its number and return above them."""
    steps = slice(stream.start[episode], stream.stop[episode])
    cells = np.append(stream.observation[steps], stream.next_observation[steps][-1])
    frames = room_frames(size, cells.astype(np.int64), stream.task)
    text = f"episode {episode + 1} of {len(stream.start)} · return {stream.returns[episode]:g}"
    return video.add_caption(video.add_margin(frames, 1, WALL[0]), text)


def _load(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        raise ConfigError(f"{path} is not there: run `python -m scripts.evaluate` first")
    try:
        with np.load(path, allow_pickle=False) as file:
            names = ("split", "task", "episode", "reward", "observation", "next_observation")
            return {name: file[name] for name in names}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise CorruptError(f"{path} is not what evaluation writes: {error}") from error
