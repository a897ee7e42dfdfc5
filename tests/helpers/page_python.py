"""The Python of a page of the documentation, run as it stands."""

from __future__ import annotations

import re
import tempfile
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from places import ROOT

from polycode_plugins.data.text import text_documents
from polycode_plugins.loading import embedded_model


@cache
def texts() -> list[str]:
    """The first of the embedded texts."""
    return [document.text[:600] for document in islice(text_documents(None), 60)]


def run(page: str, names: dict[str, Any]) -> dict[str, Any]:
    """Run the Python of a page, block after block, as it stands but for the model's name."""
    for source in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL):
        source = source.replace('"gpt2"', repr(str(embedded_model())))
        # A file of its own: nnsight, once imported, reads the source around a backward pass.
        file = Path(tempfile.mkdtemp()) / f"{Path(page).stem}.py"
        file.write_text(source, encoding="utf-8")
        exec(compile(source, str(file), "exec", dont_inherit=True), names)
    return names
