"""One self-contained HTML page: a title, a table of contents, sections."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

# The browser is forbidden to fetch anything, whatever a page holds; without scripts of our own it
# runs none at all. (NiiVue makes its workers and shaders from strings.)
_NOTHING = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_EMBEDDED = (
    "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; font-src data:; "
    "script-src 'unsafe-inline' 'unsafe-eval' blob: data:; worker-src blob: data:; "
    "connect-src blob: data:"
)


@dataclass(frozen=True)
class Section:
    """A part of a page, with an entry in its table of contents."""

    id: str
    """Of the heading: what a link to it names."""
    title: str
    """Plain text."""
    html: str
    """Trusted: made by us, with everything from outside escaped."""


def escape(value: object) -> str:
    """Return a value as text that HTML shows as it is, in an attribute too."""
    return html.escape(str(value), quote=True)


def document(
    title: str, lead: str, sections: Sequence[Section], scripts: Sequence[str] = ()
) -> str:
    """Return a page that needs no other file and no network.

    Args:
        title: plain text.
        lead: plain text, below the title.
        sections: in order.
        scripts: whole ``<script>`` elements that the sections need, put before them.

    """
    style = resources.files("prod9.report").joinpath("report.css").read_text(encoding="utf-8")
    contents = "".join(
        f'<li><a href="#{escape(part.id)}">{escape(part.title)}</a></li>' for part in sections
    )
    body = "\n".join(
        f'<section aria-labelledby="{escape(part.id)}">\n'
        f'<h2 id="{escape(part.id)}">{escape(part.title)}</h2>\n{part.html}\n</section>'
        for part in sections
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_EMBEDDED if scripts else _NOTHING}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
{style}</style>
{"".join(scripts)}</head>
<body>
<header>
<h1>{escape(title)}</h1>
<p class="lead">{escape(lead)}</p>
</header>
<nav aria-label="Contents"><ol>{contents}</ol></nav>
<main>
{body}
</main>
</body>
</html>
"""
