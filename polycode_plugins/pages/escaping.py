"""Putting foreign text (site names, corpus text, commands) where something might read it as markup.

HTML and attributes are escaped by the templates, which escape everything. What is left are the
places that a template engine knows nothing about: JSON inside a script element, and the subset of
HTML that plotly reads in every text it draws.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markupsafe import Markup

# What could end the script element or begin a comment in it, and what older JavaScript takes for
# the end of a line. Each is written as the escape that JSON itself has for it.
_IN_SCRIPT = {ord(c): f"\\u{ord(c):04x}" for c in "<>&'\u2028\u2029"}


def script_json(value: Any) -> Markup:
    """`value` as JSON that is safe inside a script element; NaN and infinities become null."""
    from markupsafe import Markup

    text = json.dumps(_plain(value), allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(_IN_SCRIPT))


def plotly_text(text: str) -> str:
    """`text` so that plotly draws it letter for letter.

    Plotly reads tags and entities in titles, names and hover texts, and replaces `%{...}` in hover
    templates; entities are the one escape it has, and it undoes each once.
    """
    out = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return " ".join(out.replace("%{", "%&#123;").split())


def breakable(text: str) -> Markup:
    """`text` as HTML in which a long name may break after dots, underscores, slashes, colons."""
    from markupsafe import Markup

    return Markup("<wbr>").join(re.split(r"(?<=[._/:])", text))


def data_uri(content: bytes, kind: str) -> str:
    """`content` as a data URI of the media type `kind`."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def csp_hash(script: str) -> str:
    """The source expression by which a Content-Security-Policy allows exactly this script."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def printable(text: str) -> str:
    """`text` as UTF-8 can hold it: undecodable bytes of a path or command become escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
