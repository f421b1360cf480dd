"""Docstrings as Markdown: their lists of names and their references become lists and links."""

import re

NAMED = re.compile(r"^(\w+(?:, \w+)*): (.*)")  # a line that explains an argument or a field
REFERENCE = re.compile(r"(?<![\[`])`((?:ad|envs)(?:\.\w+)+)`(?![\]`])")


def as_markdown(text: str) -> str:
    """Return a docstring with list items in place of its lines "name: what it is"."""
    first, *rest = text.splitlines()
    lines, is_item, is_math = [first], False, False
    for line in rest:
        named = NAMED.match(line)
        is_math ^= line.lstrip().startswith("```")
        if named and not is_math:
            lines += [] if is_item else [""]
            line, is_item = f"- `{named[1]}`: {named[2]}", True
        elif not line.strip():
            is_item = False
        elif is_item:
            line = f"    {line}"
        lines.append(line)
    return REFERENCE.sub(r"[`\1`][\1]", "\n".join(lines))
