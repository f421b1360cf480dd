"""What mkdocs.yml plugs into Markdown and into the reader of docstrings."""

import griffe
from latex2mathml.converter import convert

from scripts.docs.docstrings import as_markdown


class Docstrings(griffe.Extension):
    """Apply `as_markdown` to every docstring of the API's pages."""

    def on_instance(self, *, obj: griffe.Object, **kwargs) -> None:
        """Change the docstring of an object that has been read."""
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)


def equations(source: str, language: str, css_class: str, options, md, **kwargs) -> str:
    """Return a block ```math of equations in LaTeX, with empty lines between them, as MathML.

    Browsers draw MathML without scripts, fonts or a network.
    """
    parts = [convert(" ".join(part.split()), display="block") for part in source.split("\n\n")]
    return f'<div class="equations">{"".join(parts)}</div>'
