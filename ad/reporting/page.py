"""Pages of text, tables and charts, as Markdown and as one HTML file.

A Page has sections, a Section has blocks: Text, Table, Chart, Tiles, Video, Code, Details, Choice.
The HTML file needs no other file and no network; `charts.js` draws its charts. Texts and cells may
have `code`, **bold**, *italics* and `[links](address)`.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import numpy as np

from ad.evaluation.scores import UNKNOWN

TEMPLATE = Path(__file__).parent / "page.html.j2"
LONG = 8  # sections from which a page begins with links to them
INLINE = [  # Markdown in a text -> HTML, after the text is escaped
    (r"`([^`]+)`", r"<code>\1</code>"),
    (r"\*\*([^*]+)\*\*", r"<b>\1</b>"),
    (r"(?<!\*)\*([^*\s][^*]*)\*", r"<em>\1</em>"),
    (r"\[([^\]]+)\]\(((?!javascript:)[^)\s]+)\)", r'<a href="\2">\1</a>'),
]


@dataclass(frozen=True)
class Text:
    """A paragraph. style: "note", "lead" or "warning"."""

    text: str
    style: str = "note"


@dataclass(frozen=True)
class Table:
    """A header and rows of text, all with the same number of cells.

    text_columns: the numbers of columns of prose, which are aligned left and may be wrapped.
    """

    header: list[str]
    rows: list[list[str]]
    text_columns: tuple[int, ...] = ()

    def compact(self) -> "Table":
        """Return the table without the columns in which every row is unknown."""
        kept = [j for j in range(len(self.header)) if any(row[j] != UNKNOWN for row in self.rows)]
        rows = [[row[j] for j in kept] for row in self.rows]
        prose = tuple(kept.index(j) for j in self.text_columns if j in kept)
        return Table([self.header[j] for j in kept], rows, prose)

    def markdown(self) -> str:
        """Return the table as Markdown, numbers aligned right."""
        left = {0, *self.text_columns}
        rule = ["---" if j in left else "---:" for j in range(len(self.header))]
        return "".join(f"| {' | '.join(row)} |\n" for row in (self.header, rule, *self.rows))


@dataclass(frozen=True, eq=False)
class Chart:
    """Numbers by row and column, and how `charts.js` draws them; its head explains the fields.

    values, low, high: `[rows][columns]`, None for unknown; low and high are the ends of intervals.
    """

    kind: str
    columns: Sequence[str | float]
    values: Sequence[Sequence[float | None] | np.ndarray]
    rows: Sequence[str] = ("",)
    low: Sequence[Sequence[float | None]] | None = None
    high: Sequence[Sequence[float | None]] | None = None
    title: str = ""
    column_name: str = ""
    value_name: str = ""
    digits: int | None = None
    domain: tuple[float, float] | None = None
    styles: Sequence[Mapping[str, Any]] | None = None
    framed: Sequence[str] = ()
    framed_name: str = ""

    def spec(self) -> dict:
        """Return the chart for `charts.js`, in types that JSON has; no number has seven digits."""
        return {name: _jsonable(value) for name, value in asdict(self).items() if _is_given(value)}


@dataclass(frozen=True)
class Tiles:
    """Numbers to see first: (number, name, note) each."""

    tiles: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Video:
    """The bytes of an mp4 file, with a title."""

    title: str
    content: bytes


@dataclass(frozen=True)
class Code:
    """Lines in a fixed font."""

    text: str


@dataclass(frozen=True)
class Details:
    """Blocks that a click on the title shows."""

    title: str
    blocks: Sequence["Block"]


@dataclass(frozen=True)
class Choice:
    """Blocks by name; the reader chooses a name."""

    title: str
    options: Mapping[str, Sequence["Block"]]


Block = Text | Table | Chart | Tiles | Video | Code | Details | Choice


@dataclass(frozen=True)
class Section:
    """Blocks below a title, which is empty at the head of a page."""

    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        """Return the name of the section in links to it."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-") or "top"


@dataclass(frozen=True)
class Page:
    """A title, what kind of page it is, and its sections."""

    title: str
    subtitle: str
    sections: Sequence[Section] = field(default_factory=list)

    @property
    def is_long(self) -> bool:
        """Return whether the page begins with links to its sections."""
        return len(self.sections) >= LONG

    @cached_property
    def charts(self) -> list[Chart]:
        """Return all charts, in their order on the page."""
        blocks = [block for section in self.sections for block in section.blocks]
        return list(dict.fromkeys(b for b in _nested(blocks) if isinstance(b, Chart)))

    def html(self) -> str:
        """Return the page as one HTML file."""
        specs = [chart.spec() for chart in self.charts]
        return render(TEMPLATE, specs, page=self, charts=self.charts)

    def markdown(self) -> str:
        """Return the text and the tables of the page as Markdown, without charts and videos."""
        parts = [f"# {self.title}: {self.subtitle}\n"]
        for section in self.sections:
            parts += [f"## {section.title}\n"] if section.title else []
            parts += _markdown(section.blocks, 3)
        return "\n".join(parts)


def render(template: Path, data: Any, **values: Any) -> str:
    """Return the HTML of a template, in which `data` is JSON for its script.

    The template may include files of its own folder and of this one.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, TEMPLATE.parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {
        "inline": _inline,
        "kind": lambda block: type(block).__name__,
        "base64": lambda content: base64.b64encode(content).decode(),
    }
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    text = text.replace("<", "\\u003c")  # nothing in the data may end the script
    return environment.get_template(template.name).render(data=text, **values)


def _nested(blocks: Sequence[Block]) -> Iterator[Block]:
    """Yield `blocks` and the blocks inside them."""
    for block in blocks:
        yield block
        if isinstance(block, Details):
            yield from _nested(block.blocks)
        if isinstance(block, Choice):
            for option in block.options.values():
                yield from _nested(option)


def _markdown(blocks: Sequence[Block], level: int) -> Iterator[str]:
    for block in blocks:
        match block:
            case Text(text):
                yield f"{text}\n"
            case Table():
                yield block.markdown()
            case Tiles(tiles):
                yield "".join(f"- {name}: **{number}** ({note})\n" for number, name, note in tiles)
            case Code(text):
                yield f"```\n{text.rstrip()}\n```\n"
            case Details(title, inner):
                yield f"{'#' * level} {title}\n"
                yield from _markdown(inner, level + 1)
            case Choice(_, options):
                for name, inner in options.items():
                    yield f"{'#' * level} {name}\n"
                    yield from _markdown(inner, level + 1)


def _inline(text: str) -> markupsafe.Markup:
    """Return a text with Markdown inside the line as HTML."""
    html = str(markupsafe.escape(text))
    for pattern, replacement in INLINE:
        html = re.sub(pattern, replacement, html)
    return markupsafe.Markup(html)


def _is_given(value: Any) -> bool:
    return value is not None and not (hasattr(value, "__len__") and not len(value))


def _jsonable(value: Any) -> Any:
    """Return `value` with lists in place of sequences, and None for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {key: _jsonable(own) for key, own in value.items()}
    if isinstance(value, str | bool) or value is None:
        return value
    if hasattr(value, "tolist"):
        return _jsonable(value.tolist())
    if isinstance(value, int | float):
        number = float(f"{value:.6g}")
        return None if number != number or abs(number) == float("inf") else _whole(number)
    return [_jsonable(own) for own in value]


def _whole(number: float) -> int | float:
    return int(number) if number == int(number) else number
