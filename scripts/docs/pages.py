"""Pages that are written by hand, READMEs among them, as the site needs them.

They are Markdown whose links lead to files of the repository, so that they can be read there. On
the site such a link leads to a page: that of a Markdown file, that of the API for a Python file,
else a copy of the file. A line `{{ name argument }}` of a page in `scripts/docs/pages` is replaced
by what is generated.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from ad.errors import ConfigError
from ad.runtime.files import write_text
from scripts.docs import ROOT

HERE = Path(__file__).parent
PICTURES = {".png", ".gif", ".svg"}
LINK = re.compile(r"\]\((?![a-z]+:)([^)#\s]*)(#[^)\s]*)?\)")
GENERATED = re.compile(r"^\{\{ (\w+)(?: (\S+))? \}\}$", re.MULTILINE)


def write(site: Path, generators: dict[str, Callable[..., str]]) -> None:
    """Write all pages into the folder `site`. Raises ConfigError for a link to no file."""
    pages = {path: page for path in _markdown_files() for page in [_page(path)]}
    for path, page in pages.items():
        text = with_links((ROOT / path).read_text("utf-8"), path, pages, site)
        if path.is_relative_to("scripts/docs"):
            text = GENERATED.sub(lambda m: generators[m[1]](site, *filter(None, [m[2]])), text)
        write_text(site / page, text)
    shutil.copytree(HERE / "theme", site / "theme")


def picture(site: Path, name: str) -> str:
    """Return a drawing as it stands in a page, so that its colors are those of the page."""
    return (HERE / f"pages/pictures/{name}.svg").read_text("utf-8")


def _markdown_files() -> list[PurePosixPath]:
    """Return the Markdown files of the repository that are tracked, by their paths in it."""
    command = ["git", "ls-files", "--cached", "*.md"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    return [PurePosixPath(line) for line in lines if (ROOT / line).exists()]


def _page(path: PurePosixPath) -> PurePosixPath:
    """Return the place on the site of a Markdown file of the repository."""
    if path.is_relative_to("scripts/docs/pages"):
        return path.relative_to("scripts/docs/pages")
    return path.with_name("index.md") if path.name == "README.md" else path


def with_links(text: str, path: PurePosixPath, pages: dict, site: Path) -> str:
    """Return the text of the file `path` with links that lead to pages and files of the site."""

    def link(match: re.Match) -> str:
        if not match[1]:
            return match[0]
        target = PurePosixPath(os.path.normpath(path.parent / match[1]))
        if not (ROOT / target).exists():
            raise ConfigError(f"{path} has a link to {match[1]}, which does not exist")
        if (ROOT / target / "README.md").exists():
            target /= "README.md"
        is_package = (ROOT / target / "__init__.py").exists()
        if target.parts[0] in ("ad", "envs") and (target.suffix == ".py" or is_package):
            return f"][{'.'.join(target.with_suffix('').parts).removesuffix('.__init__')}]"
        place = pages.get(target) or _copy(target, site)
        return f"]({os.path.relpath(place, pages[path].parent)}{match[2] or ''})"

    blocks = re.split(r"(^```.*?^```)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(LINK.sub(link, own) if not own.startswith("```") else own for own in blocks)


def _copy(target: PurePosixPath, site: Path) -> PurePosixPath:
    """Copy a file of the repository to the site, and return its place: text as a browser shows it.

    Browsers offer files such as YAML for download.
    """
    place = PurePosixPath("files") / target
    place = place if target.suffix in PICTURES else place.with_name(f"{target.name}.txt")
    (site / place).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / target, site / place)
    return place
