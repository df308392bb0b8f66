"""One self-contained HTML page: a title, a table of contents, sections."""

import base64
import hashlib
import html
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources


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
    # A file's name may hold bytes that are no UTF-8 (lone surrogates in Python).
    return html.escape(str(value).encode("utf-8", "replace").decode("utf-8"), quote=True)


def script_hashes(scripts: Sequence[str]) -> str:
    """Return what a Content-Security-Policy calls these inline scripts (or styles)."""
    digests = [hashlib.sha256(text.encode()).digest() for text in scripts]
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


def page_policy(scripts: Sequence[str]) -> str:
    """Return the policy of a page that fetches nothing and runs these inline scripts alone."""
    allowed = f"; script-src {script_hashes(scripts)}" if scripts else ""
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'{allowed}"


def document(
    title: str,
    lead: str,
    sections: Sequence[Section],
    scripts: Sequence[str] = (),
    own_scripts: Sequence[str] = (),
) -> str:
    """Return a page that needs no other file and no network.

    Args:
        title: plain text.
        lead: plain text, below the title.
        sections: in order.
        scripts: whole ``<script>`` elements that the sections need, put before them.
        own_scripts: JavaScript inside the sections. No other script runs.
    """
    style = resources.files("prod9.report").joinpath("report.css").read_text(encoding="utf-8")
    contents = "".join(
        f'<li><a href="#{escape(part.id)}">{escape(part.title)}</a></li>' for part in sections
    )
    allowed = [text.removeprefix("<script>").removesuffix("</script>") for text in scripts]
    body = "\n".join(
        f'<section aria-labelledby="{escape(part.id)}">\n'
        f'<h2 id="{escape(part.id)}">{escape(part.title)}</h2>\n{part.html}\n</section>'
        for part in sections
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{page_policy([*allowed, *own_scripts])}">
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
