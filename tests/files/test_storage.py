"""Files, names and settings of others: a right answer or one clear sentence, whatever they hold.

Every test breaks something that was right, in ways that are drawn but always the same. No exception
but a PolycodeError may come out, no code may run, nothing may be written elsewhere.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile_files import copied, resealed
from hostile_values import SCRIPT, answer, drawn
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import polycode_plugins as pc
from polycode_plugins.files import storage

# -- records --------------------------------------------------------------------------------------


# -- state ----------------------------------------------------------------------------------------


@drawn
@given(st.data())
@pytest.mark.usefixtures("elsewhere")
def test_tensors_of_a_state(saved_run, tmp_path_factory, data):
    folder = copied(saved_run, tmp_path_factory.getbasetemp() / "state")
    tensors = load_file(saved_run / storage.STATE)
    for _ in range(data.draw(st.integers(1, 2))):
        key = data.draw(st.sampled_from(sorted(tensors)))
        deed = data.draw(st.sampled_from(["key", "dtype", "shape", "value", "remove", "huge"]))
        value = tensors[key]
        if deed == "key":
            names = ["", "/", "x/y/z", "-1/a/b", "٣/a/b", "99999999999/a", f"{key}/more", SCRIPT]
            tensors[data.draw(st.sampled_from(names))] = tensors.pop(key)
        elif deed == "dtype":
            kinds = [torch.int8, torch.bool, torch.float16, torch.bfloat16, torch.complex64]
            kind = data.draw(st.sampled_from(kinds))
            tensors[key] = (value.real if value.is_complex() else value).to(kind)
        elif deed == "shape":
            shapes = [(), (0,), (-1, 1), (1, -1), (1, 1, -1)]
            shape = data.draw(st.sampled_from(shapes))
            tensors[key] = value.reshape(shape) if -1 in shape else torch.zeros(shape)
        elif deed == "value":
            odd = data.draw(st.sampled_from([float("nan"), float("inf"), -1.0, 1e300]))
            tensors[key] = torch.full_like(value.double(), odd)
        elif deed == "huge":
            tensors[key] = torch.ones(200_000, dtype=value.dtype)
        else:
            del tensors[key]
        if not tensors:
            break
    save_file(tensors, folder / storage.STATE)
    resealed(folder, storage.STATE, storage.RUN)
    found = answer(lambda: pc.Analysis.load(folder))
    if found is not None:
        assert all(found.statistics.n_samples(site) >= 0 for site in found)


@drawn
@given(st.integers(0, 2**16), st.integers(0, 7), st.booleans(), st.booleans())
@pytest.mark.usefixtures("elsewhere")
def test_damaged_files(saved_run, tmp_path_factory, at, bit, cut, seal):
    folder = copied(saved_run, tmp_path_factory.getbasetemp() / "damaged")
    for name in (storage.STATE, storage.RESULTS):
        content = bytearray((saved_run / name).read_bytes())
        content[at % len(content)] ^= 1 << bit
        (folder / name).write_bytes(content[: at % len(content)] if cut else content)
        if seal:
            resealed(folder, name, storage.RUN)
    found = answer(lambda: pc.Analysis.load(folder))
    assert seal or found is None


@pytest.mark.usefixtures("elsewhere")
def test_a_pickle_is_not_opened(saved_run, tmp_path):
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    folder = copied(saved_run, tmp_path / "pickled")
    torch.save(Bomb(), folder / storage.STATE)
    resealed(folder, storage.STATE, storage.RUN)
    with pytest.raises(pc.StateError, match="damaged"):
        pc.Analysis.load(folder)
    np.save(tmp_path / "paths.npz", np.array([Bomb()]), allow_pickle=True)
    with pytest.raises(pc.StateError):
        pc.metrics.Trajectories.load(tmp_path / "paths.npz.npy")
    assert not (tmp_path / "ran").exists()
    source = "\n".join(p.read_text() for p in Path(pc.__file__).parent.rglob("*.py"))
    assert not re.search(r"\bimport pickle|\btorch\.load\(|\beval\(\s*[a-z\"]|\bexec\(", source)
