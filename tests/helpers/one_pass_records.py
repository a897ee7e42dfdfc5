"""What one pass over the embedded model keeps."""

from __future__ import annotations

from planted import Reader, Words, planted_texts

import polycode_plugins as pc
from polycode_plugins.adapters.base import DataOptions
from polycode_plugins.explainers.records.one_pass import run_pass
from polycode_plugins.explainers.units.neurons import neurons


def collect(batch_size: int, units=neurons, **options):
    adapter = pc.load(Reader())
    return run_pass(
        adapter,
        planted_texts(),
        "read",
        lambda site, width: [units(width)],
        options=DataOptions(batch_size=batch_size),
        tokenizer=Words(),
        **options,
    )
