"""The reference values: their truths from the oracles, our answers, and wrong answers found out."""

from __future__ import annotations

import importlib.util
import json
import math
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from polycode_plugins.commands import main
from polycode_plugins.errors import DataError
from polycode_plugins.testing import reference
from polycode_plugins.testing.reference.catalogue import FILE
from polycode_plugins.testing.reference.generators import distorted
from polycode_plugins.testing.reference.oracles import ORACLES, distorted_gaussian_information

SCRIPT = Path(__file__).parents[2] / "scripts" / "reference_truths.py"
CASES = reference.cases()


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference_truths", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_file_is_what_the_oracles_say() -> None:
    for case in CASES:
        assert np.allclose(ORACLES[case.quantity](case), case.truth, rtol=0, atol=1e-6), case.name


def test_the_script_fills_in_what_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled = [asdict(c) for c in reference.cases(["polygon-5", "labels"])]
    bare = [c | {"truth": 0.0, "fingerprint": {}} for c in filled]
    path = tmp_path / FILE
    path.write_text(json.dumps({"cases": bare}))
    module = script()
    monkeypatch.setattr(module, "PATH", path)
    monkeypatch.setattr("sys.argv", ["reference_truths.py"])
    module.main()
    assert json.loads(path.read_text()) == {"cases": filled}


def test_oracles_agree_with_closed_forms() -> None:
    for rho in (0.3, 0.8):
        truth = -0.5 * math.log1p(-(rho**2))
        assert distorted_gaussian_information(rho, "", "") == pytest.approx(truth, abs=3e-5)
    # Signs of a Gaussian pair agree with probability 1/2 + arcsin(rho) / pi (Sheppard 1899).
    same = 0.5 + math.asin(0.6) / math.pi
    truth = math.log(2) + same * math.log(same) + (1 - same) * math.log(1 - same)
    cut = distorted_gaussian_information(0.6, "quantised 1", "quantised 1")
    assert cut == pytest.approx(truth, abs=1e-5)
    # Cauchy pair: ln(8 pi) - 3 (Czyz et al. 2023).
    cauchy = next(c for c in CASES if c.name == "student-1-degree")
    assert cauchy.truth == pytest.approx(math.log(8 * math.pi) - 3, abs=1e-6)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_our_answers(case: reference.Case) -> None:
    verdict = reference.answer(case)
    assert verdict.ok, verdict.to_dict()


def test_bfloat16_is_that_of_torch() -> None:
    import torch

    values = np.random.default_rng(0).normal(size=1000)
    expected = torch.tensor(values, dtype=torch.float32).bfloat16().double().numpy()
    assert np.array_equal(distorted(values, "bfloat16"), expected)


def test_a_wrong_package_is_found_out() -> None:
    """Planted: a plug-in entropy of bins, and capacities in nats."""
    wrong: dict[str, reference.Measure] = {
        "mutual_information": lambda arrays, settings: _binned(arrays["x"], arrays["y"]),
        "dropout_capacity": lambda arrays, settings: (
            math.log(2) * reference.MEASURES["dropout_capacity"](arrays, settings)
        ),
    }
    asked = reference.cases(["independent-relu-6", "dropout-4-symbols-rate-0.2", "polygon-5"])
    verdicts = {v.case.name: v for v in reference.run(asked, wrong)}
    assert not any(v.ok for v in verdicts.values())
    assert "not measured" in verdicts["polygon-5"].reason


def _binned(x: np.ndarray, y: np.ndarray) -> float:
    counts = np.histogram2d(x[:, 0], y[:, 0], bins=40)[0] / len(x)
    product = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True)
    some = counts > 0
    return float((counts[some] * np.log(counts[some] / product[some])).sum())


def test_arrays_of_another_numpy_are_refused() -> None:
    case = CASES[0]
    other = reference.Case(**{**case.__dict__, "seed": case.seed + 1})
    with pytest.raises(DataError, match="other numbers"):
        other.arrays()


def test_answers_are_judged() -> None:
    asked = reference.cases(["polygon-5", "water-filling", "action-circle"])
    answers = {"polygon-5": [0.4] * 5, "water-filling": 2.6}
    verdicts = {v.case.name: v for v in reference.judge(answers, asked)}
    assert verdicts["polygon-5"].ok
    assert verdicts["water-filling"].error == pytest.approx(0.1047689)
    assert not verdicts["water-filling"].ok
    assert verdicts["action-circle"].reason == "no answer was given"
    assert "shape" in reference.judge({"polygon-5": 0.4}, asked[-1:])[0].reason
    with pytest.raises(DataError, match="did you mean 'polygon-5'"):
        reference.judge({"polygon-6": 1.0}, asked)
    with pytest.raises(DataError, match="no number"):
        reference.judge({"polygon-5": "much"}, asked)
    with pytest.raises(DataError, match="no reference case"):
        reference.cases(["nothing*"])
    nan = reference.judge({"water-filling": math.nan}, reference.cases(["water-filling"]))
    assert not nan[0].ok


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["reference", "dropout_capacity", "polygon-5"]) == 0
    out = capsys.readouterr().out
    assert "ok    dropout-4-symbols-rate-0.2" in out
    assert "5 of 5 right" in out
    folder = tmp_path / "arrays"
    assert main.main(["reference", "labels", "polygon-5", "--export", str(folder)]) == 0
    assert {p.name for p in folder.iterdir()} == {"labels.npz", "polygon-5.npz", FILE}
    with np.load(folder / "labels.npz") as arrays:
        kept = reference.cases(["labels"])[0].arrays()
        assert np.array_equal(arrays["x"], kept["x"])
        assert np.array_equal(arrays["y"], kept["y"])
    assert main.main(["reference", "--export", str(folder)]) == 2
    answers = tmp_path / "answers.json"
    answers.write_text(json.dumps({"labels": 0.6, "polygon-5": [1.0] * 5}))
    capsys.readouterr()
    status = main.main(["reference", "labels", "polygon-5", "--answers", str(answers), "--json"])
    assert status == 1
    assert [v["ok"] for v in json.loads(capsys.readouterr().out)] == [True, False]
    assert main.main(["reference", "--list"]) == 0
    assert capsys.readouterr().out.count("\n") == len(CASES)
