"""Blocks that were planted are found and counted; distorted embeddings have none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from verdicts import outcome, verdict

from polycode_plugins import theory
from polycode_plugins.experiments import semi_orthogonal_blocks as module

KURTOSIS = np.repeat([6.0, 18.0], 8)


def tables(**embeddings):
    """Tables as if the trained models had these embeddings, rotated differently each time."""
    generator = np.random.default_rng(0)
    networks, blocks = [], []
    random = [generator.normal(size=(24, 8)) for _ in KURTOSIS]
    for name in ("quadratic", "ReLU", "linear", "random"):
        for number, k in enumerate(KURTOSIS):
            w = random[number]
            if name in embeddings:
                w = embeddings[name] @ np.linalg.qr(generator.normal(size=(8, 8)))[0]
            row = {"model": name, "kurtosis": k, "network": number}
            found = theory.find_blocks(w, 0.1)
            networks.append(row | module.summary(w, found))
            blocks += module.block_rows(row, found)
    return {"networks": pd.DataFrame(networks), "blocks": pd.DataFrame(blocks)}


def pairs() -> np.ndarray:
    return np.concatenate([np.eye(8), -np.eye(8)])


def one_block() -> np.ndarray:
    frame, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(24, 8)))
    return frame


def test_planted_blocks_are_found():
    numbers = tables(quadratic=one_block(), ReLU=pairs())
    for claim in module.EXPERIMENT.claims:
        assert outcome(module.EXPERIMENT, numbers, claim.text) == "holds", claim.text
    found = verdict(module.EXPERIMENT, numbers, "Block sizes differ").effect
    assert found.value == pytest.approx(1 - 1 / 8)


def test_the_absence_of_blocks_is_reported_as_absent():
    distorted = one_block() * np.linspace(1, 3, 8)
    numbers = tables(quadratic=distorted, ReLU=distorted)
    for name in ("quadratic", "ReLU"):
        for words in (f"embedding is block-semi-orthogonal ({name})", f"is wasted ({name})"):
            assert outcome(module.EXPERIMENT, numbers, words) == "does not hold"
    assert outcome(module.EXPERIMENT, numbers, "Block sizes differ") == "does not hold"
    assert outcome(module.EXPERIMENT, numbers, "share in pairs") == "does not hold"
    swapped = tables(quadratic=pairs(), ReLU=one_block(), random=pairs())
    for words in (
        "Block sizes differ",
        "share one block",
        "share in pairs",
        "random embedding is not",
        "random embedding wastes",
    ):
        assert outcome(module.EXPERIMENT, swapped, words) == "does not hold"


def test_without_shared_dimensions_there_is_nothing_to_judge():
    numbers = tables(quadratic=np.eye(8), ReLU=np.eye(8))
    for words in ("share one block", "share in pairs"):
        found = verdict(module.EXPERIMENT, numbers, words)
        assert found.outcome == "cannot be judged at this scale"
        assert "no network has polysemantic features" in found.reason


def test_trained_linear_models_give_the_first_features_a_dimension_each(tmp_path):
    numbers = module.run(module.EXPERIMENT.settings["smoke"], 0, tmp_path)
    blocks = numbers["blocks"]
    linear = blocks[blocks["model"] == "linear"]
    assert linear["features"].tolist() == [1] * 16
    assert linear["semi_orthogonal"].all()
    networks = numbers["networks"].groupby("model")["efficiency"].mean()
    assert networks["quadratic"] > 0.99
    assert networks["random"] < 0.9
    cosines = numbers["cosines"]
    assert cosines["cosine"].between(0, 1 + 1e-12).all()
    assert len(cosines) == 4 * 12 * 12
    assert module.figure(numbers).axes
