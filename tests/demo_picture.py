"""Film the first game of a demo: python tests/demo_picture.py logs/<run>/demo.html logs/demo.gif

At most SEARCH[0] frames show the search for the goal; then each step is shown, then fewer of them.
"""

import io
import sys
from pathlib import Path

from browser import MISSING, browser
from PIL import Image

SIZE, CLIP = (960, 1200), "const box = document.getElementById('play').getBoundingClientRect();"
HEIGHT = 382  # pixels: the rooms, the controls and the first chart
SEARCH, SLOW, FAST = (60, 8), (32, 1), (18, 11)  # frames, and steps of each
DURATION, LAST = 110, 2500  # milliseconds of a frame, and of the last one
COLORS = 40


def film(page: Path) -> list[Image.Image]:
    """Return the frames of the first game."""
    frames = []
    with browser() as chromium:
        chromium.resize(*SIZE)
        chromium.open(page.resolve().as_uri())
        left, top, right = chromium.script(f"{CLIP} return [box.left, box.top, box.right]")

        def shoot(steps: int) -> None:
            """Take steps in the page and a picture of it."""
            chromium.script("advance(arguments[0]); document.activeElement.blur()", steps)
            picture = Image.open(io.BytesIO(chromium.screenshot())).convert("RGB")
            frames.append(picture.crop((left, top, right, top + HEIGHT)))

        while len(frames) < SEARCH[0] and not chromium.script("return agent.rewardSeen"):
            shoot(SEARCH[1])
        for count, steps in (SLOW, FAST):
            for _ in range(count):
                shoot(steps)
    return frames


def main() -> None:
    """Write the frames as an animated GIF, all with the colors of the last one."""
    if MISSING:
        sys.exit(f"there is no {' and no '.join(MISSING)} on PATH")
    page, target = map(Path, sys.argv[1:])
    frames = film(page)
    palette = frames[-1].quantize(COLORS, Image.Quantize.MAXCOVERAGE)
    first, *rest = (each.quantize(palette=palette, dither=Image.Dither.NONE) for each in frames)
    durations = [DURATION] * len(rest) + [LAST]
    first.save(target, save_all=True, append_images=rest, duration=durations, loop=0, optimize=True)


if __name__ == "__main__":
    main()
