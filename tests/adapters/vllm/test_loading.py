"""Which engines statistics can be gathered in; vLLM itself is not needed."""

from __future__ import annotations

import importlib.util
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import polycode_plugins as pc
from polycode_plugins.adapters import Batch
from polycode_plugins.adapters.vllm.loading import EXTENSION, check_settings, is_engine
from polycode_plugins.adapters.vllm.requests import prompts, rows_of
from polycode_plugins.errors import DataError, ModelError, PluginError
from polycode_plugins.loading import embedded_model
from polycode_plugins.runs.engine_worker import StatisticsWorker

WITHOUT = importlib.util.find_spec("vllm") is None


def configuration(**changes: Any) -> Any:
    fields = {
        "worker_extension_cls": EXTENSION,
        "pipeline_parallel_size": 1,
        "data_parallel_size": 1,
        "enable_prefix_caching": False,
        "enforce_eager": True,
        "mode": 0,
        "speculative_config": None,
        "use_v2_model_runner": False,
        **changes,
    }
    everything = SimpleNamespace(**fields)
    everything.parallel_config = everything.cache_config = everything.model_config = everything
    everything.compilation_config = everything
    return everything


def test_an_engine_that_statistics_can_be_gathered_in():
    check_settings(configuration())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"worker_extension_cls": ""}, f"worker_extension_cls='{EXTENSION}'"),
        ({"worker_extension_cls": "somebody.Else"}, f"worker_extension_cls='{EXTENSION}'"),
        ({"enable_prefix_caching": True}, "enable_prefix_caching=False"),
        ({"enforce_eager": False}, "enforce_eager=True"),
        ({"mode": 3}, "enforce_eager=True"),
        ({"speculative_config": object()}, "speculative_config=None"),
        ({"pipeline_parallel_size": 2}, "pipeline_parallel_size=1"),
        ({"data_parallel_size": 4}, "data_parallel_size=1"),
        ({"use_v2_model_runner": True}, "VLLM_USE_V2_MODEL_RUNNER=0"),
    ],
)
def test_every_setting_that_would_make_numbers_wrong_is_refused(change, said):
    with pytest.raises(ModelError) as refused:
        check_settings(configuration(**change))
    assert said in str(refused.value)


def test_the_name_of_the_extension_is_that_of_the_class():
    module, _, name = EXTENSION.rpartition(".")
    assert getattr(sys.modules[module], name) is StatisticsWorker
    # vLLM refuses an extension with a name that its workers have.
    own = set(dir(StatisticsWorker)) - set(dir(object))  # to which nnsight adds names
    assert all(n.startswith(("polycode_", "__")) for n in own)


@pytest.mark.skipif(not WITHOUT, reason="vLLM is installed here")
def test_without_vllm_it_is_said_what_to_install():
    with pytest.raises(PluginError, match=r"pip install 'polycode-plugins\[vllm\]'"):
        pc.load(f"vllm:{embedded_model()}")
    assert not is_engine(object())


def test_what_cannot_be_loaded_is_refused_before_vllm_is_asked(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        pc.load(f"vllm:{tmp_path / 'nowhere'}")
    with pytest.raises(ModelError, match=r"has no config\.json"):
        pc.load(str(tmp_path), "vllm")
    for setting, value in (("enforce_eager", False), ("enable_prefix_caching", True)):
        with pytest.raises(ModelError, match=f"{setting}.* is not possible with statistics"):
            pc.load(f"vllm:{embedded_model()}", engine={setting: value})
    with pytest.raises(ModelError, match="unknown dtype"):
        pc.load(f"vllm:{embedded_model()}", dtype="float3")
    with pytest.raises(ModelError, match=r"no vllm\.LLM"):
        pc.load(torch.nn.Linear(2, 2), "vllm")
    with pytest.raises(ModelError, match="live already"):
        pc.load(torch.nn.Linear(2, 2), "vllm", dtype="float32")


def test_rows_become_prompts_without_padding_and_masks_move_with_them():
    tokens = torch.tensor([[5, 6, 7, 0], [0, 8, 9, 3]])
    attention = torch.tensor([[1, 1, 1, 0], [0, 1, 1, 1]])
    mask = torch.tensor([[False, True, True, False], [False, True, False, True]])
    batch = Batch(
        {"input_ids": tokens, "attention_mask": attention},
        rows=torch.tensor([10, 11]),
        documents=torch.tensor([3, 4]),
        mask=mask,
    )
    assert prompts(batch) == [[5, 6, 7], [8, 9, 3]]
    first, second = rows_of(batch)
    assert (first.number, first.document, first.left_out) == (10, 3, (0,))
    assert (second.number, second.document, second.left_out) == (11, 4, (1,))
    plain = Batch(tokens, rows=torch.tensor([0, 1]), mask=torch.tensor([False, True]))
    assert [row.left_out for row in rows_of(plain)] == [(0, 1, 2, 3), ()]
    with pytest.raises(DataError, match="row 0 has no token"):
        rows_of(Batch({"input_ids": tokens, "attention_mask": 0 * attention}, batch.rows * 0))
