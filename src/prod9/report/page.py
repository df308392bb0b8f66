"""HTML pages made from templates; what comes from outside prod9 is escaped."""

import base64
import hashlib
import json
import statistics
from collections.abc import Sequence
from functools import cache, partial
from importlib.resources import files
from typing import Any

import jinja2

from prod9.report import numbers
from prod9.results.schema import too_few

_NOTHING = "'none'"
_SHORT = {
    "efficientnet": "EfficientNet, ImageNet",
    "medicalnet": "MedicalNet",
    "classifier": "classifier of this data",
}


@cache
def asset(name: str) -> str:
    """Return a text file that lies beside this one."""
    return (files("prod9.report") / name).read_text(encoding="utf-8")


@cache
def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("prod9.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    functions: dict[str, Any] = {"absent": numbers.absent}
    filters: dict[str, Any] = {
        "digest": numbers.digest,
        "integer": "{:,}".format,
        "json": partial(json.dumps, default=str),
        "measured": numbers.measured,
        "median": statistics.median,
        "number": numbers.number,
        "prose": numbers.prose,
        "ratio": numbers.ratio,
        "share": numbers.share,
        "short": _SHORT.__getitem__,
        "too_few": too_few,
    }
    made.globals.update(functions)
    made.filters.update(filters)
    return made


def render(template: str, **values: Any) -> str:
    """Return a page or a part of one, made from a file of ``templates``."""
    text = _environment().get_template(template).render(values)
    # A file's name may hold bytes that are no UTF-8 (lone surrogates in Python).
    return text.encode("utf-8", "replace").decode("utf-8")


def document(
    title: str,
    lead: str,
    sections: Sequence[tuple[str, str, str]],
    scripts: Sequence[str] = (),
    styles: Sequence[str] = (),
) -> str:
    """Return a page with a table of contents that needs no other file and no network.

    Args:
        title: plain text.
        lead: plain text, below the title.
        sections: (id, title, HTML) in order; those without content are left out.
        scripts: JavaScript that runs at the end of the page. No other script runs.
        styles: CSS beside that of every report.
    """
    styles = [asset("report.css"), *styles]
    return render(
        "report.html",
        title=title,
        lead=lead,
        sections=[section for section in sections if section[2].strip()],
        scripts=scripts,
        styles=styles,
        policy=page_policy(scripts, styles),
    )


def page_policy(scripts: Sequence[str], styles: Sequence[str], *, served: bool = False) -> str:
    """Return the Content-Security-Policy of a page with these inline scripts and styles alone.

    A ``served`` page may also run scripts of its server, and ask it for data. NiiVue needs neither
    ``eval`` nor workers; its font is an image inside the script (``data:``).
    """

    def hashes(texts: Sequence[str]) -> list[str]:
        digests = [hashlib.sha256(text.encode()).digest() for text in texts]
        return [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]

    own = ["'self'"] if served else []
    allowed: dict[str, list[str]] = {
        "default-src": [],
        "script-src": [*own, *hashes(scripts)],
        "style-src": hashes(styles),
        "img-src": ["data:"],
        "connect-src": own,
        "base-uri": [],
        "form-action": [],
    }
    if served:  # not known inside a page
        allowed["frame-ancestors"] = []
    return "; ".join(f"{what} {' '.join(found) or _NOTHING}" for what, found in allowed.items())
