"""Compose frames (panels, captions, margins) and encode them as mp4 files.

Frames are uint8 [T, H, W, 3]. The package ffmpeg-python only builds the command line. The program
is the ffmpeg on PATH, or else the one in the wheel of imageio-ffmpeg.
"""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import ffmpeg
import imageio_ffmpeg
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ad.errors import MachineError
from ad.runtime.files import atomic_write

BACKGROUND, INK = 255, (40, 40, 40)
HASH_PREFIX = "frames-sha256:"  # of the hash of the frames in the comment of an mp4 file


def ffmpeg_program() -> str:
    """Return the path of an ffmpeg program; raises MachineError if there is none."""
    try:
        return shutil.which("ffmpeg") or imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise MachineError(
            "there is no ffmpeg program: put one on PATH, or install imageio-ffmpeg from a wheel"
        ) from error


def write_video(path: Path, frames: np.ndarray, fps: int, fresh: bool = False) -> bool:
    """Write `frames` atomically as an H.264 mp4 file; odd heights and widths are padded by one.

    Returns False, and writes nothing, if the file exists with the same frames and `fps`, unless
    `fresh`. Raises ValueError if there are no frames, MachineError if ffmpeg fails.
    """
    if len(frames) == 0:
        raise ValueError(f"{path}: a video needs at least one frame")
    odd = [(0, side % 2) for side in frames.shape[1:3]]
    if any(map(any, odd)):
        frames = np.pad(frames, [(0, 0), *odd, (0, 0)], "edge")
    frames = np.ascontiguousarray(frames)
    digest = hashlib.sha256(f"{fps} {frames.shape} ".encode())
    digest.update(frames.data)
    comment = HASH_PREFIX + digest.hexdigest()
    if not fresh and path.exists() and comment.encode() in path.read_bytes():
        return False
    with atomic_write(path) as temporary:
        _encode(temporary, frames, fps, comment)
    return True


def side_by_side(panels: Sequence[np.ndarray], gap: int = 12) -> np.ndarray:
    """Join panels [T_i, H, W_i, 3] horizontally; a shorter panel repeats its last frame."""
    length = max(len(panel) for panel in panels)
    padded = [panel[np.minimum(np.arange(length), len(panel) - 1)] for panel in panels]
    space = np.full((length, padded[0].shape[1], gap, 3), BACKGROUND, np.uint8)
    parts = [part for panel in padded for part in (space, panel)]
    return np.concatenate(parts[1:], axis=2)


def add_caption(frames: np.ndarray, text: str, size: int = 15) -> np.ndarray:
    """Add a strip with `text` above the frames; the font is at most `size`, smaller to fit."""
    fonts = [ImageFont.load_default(number) for number in range(size, 6, -1)]
    fitting = (font for font in fonts if font.getlength(text) <= frames.shape[2] - 4)
    font = next(fitting, fonts[-1])
    strip = Image.new("RGB", (frames.shape[2], 2 * size), (BACKGROUND,) * 3)
    center = (frames.shape[2] / 2, size)
    ImageDraw.Draw(strip).text(center, text, fill=INK, font=font, anchor="mm")
    strips = np.broadcast_to(np.asarray(strip), (len(frames), 2 * size, frames.shape[2], 3))
    return np.concatenate([strips, frames], axis=1)


def add_margin(frames: np.ndarray, pixels: int = 12, gray: int = BACKGROUND) -> np.ndarray:
    """Add a border of `pixels` in one `gray` (0 to 255) around the frames."""
    length, height, width, _ = frames.shape
    shape = (length, height + 2 * pixels, width + 2 * pixels, 3)
    bordered = np.full(shape, gray, np.uint8)
    bordered[:, pixels:-pixels, pixels:-pixels] = frames
    return bordered


def _encode(path: Path, frames: np.ndarray, fps: int, comment: str) -> None:
    height, width = frames.shape[1:3]
    raw = ffmpeg.input(
        "pipe:", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", framerate=fps
    )
    settings = {
        "format": "mp4",
        "vcodec": "libx264",
        "pix_fmt": "yuv420p",  # the only format that every browser decodes
        "crf": 20,
        "preset": "veryfast",  # slower presets make flat drawings no smaller
        "threads": 1,  # the same bits on every machine
        "movflags": "+faststart",
        "metadata": f"comment={comment}",
    }
    try:
        raw.output(str(path), **settings).overwrite_output().run(
            cmd=ffmpeg_program(),
            input=frames.reshape(-1).data,
            capture_stdout=True,
            capture_stderr=True,
        )
    except OSError as error:
        raise MachineError(f"the ffmpeg program cannot be started: {error}") from error
    except ffmpeg.Error as error:
        reason = error.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise MachineError(f"ffmpeg could not write {path.name}: {' '.join(reason)}") from error
