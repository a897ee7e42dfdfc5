"""Where the documentation lies, for the links of a page."""

from __future__ import annotations

import os
from importlib import metadata

#: Names the folder or address of the built documentation.
VARIABLE = "POLYCODE_DOCS"


def base() -> str:
    """The address that links to the documentation begin with, without a slash; "" without one.

    POLYCODE_DOCS, else the address that this package's metadata gives.
    """
    given = os.environ.get(VARIABLE)
    if given is None:
        try:
            urls = metadata.metadata("polycode-plugins").get_all("Project-URL") or []
        except metadata.PackageNotFoundError:  # run from a folder that was never installed
            urls = []
        entries = (url.partition(",") for url in urls)
        given = next((at.strip() for name, _, at in entries if name == "Documentation"), "")
    return given.rstrip("/")


def address(place: str) -> str:
    """The address of a paragraph, such as "metrics.html#action"; "" where none is known.

    What already is an address, such as that of another package's documentation, stays as it is.
    """
    if place.startswith(("https://", "http://")):
        return place
    return f"{base()}/{place}" if place and base() else ""
