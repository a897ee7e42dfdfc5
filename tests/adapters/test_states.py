"""Models in other states: right, or one sentence, and the user's call goes on."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
import transformers
from capture_helpers import Mean, hooks_on
from torch import Tensor, nn

import polycode_plugins as pc
from polycode_plugins.errors import PolycodeError

X = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 6)).eval()


def seen(model: Any, site: str, run: Any, times: int = 1) -> int:
    with pc.attach(model, site, Mean()) as probe, torch.no_grad():
        for _ in range(times):
            run()
    analysis = probe.compute()
    assert hooks_on(model) == 0
    return int(analysis[site, "mean"].n_samples)


def test_a_model_that_was_compiled_and_ran_before(caplog):
    model = network()
    compiled = torch.compile(model, backend="eager")
    compiled(X)
    assert seen(compiled, "_orig_mod.0", lambda: (compiled(X), compiled(X[:20]))) == 60
    assert seen(model, "0", lambda: (compiled(X), compiled(X[:20])), 2) == 120
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert said == []  # dynamo has nothing to say of hooks
    model = network()
    model.compile(backend="eager")
    model(X)
    assert seen(model, "0", lambda: model(X), 3) == 120

    def compile_inside() -> None:
        torch.compile(model, backend="eager", fullgraph=True)(X)

    assert seen(model, "0", compile_inside, 2) == 80


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_torchscript_is_refused_where_nothing_is_under_way():
    model = network()
    script, written = torch.jit.trace(model, X), torch.jit.script(model)
    for whole, site in ((script, "0"), (written, "0"), (nn.Sequential(script, written), "0")):
        with pytest.raises(pc.ModelError, match="TorchScript"):
            seen(whole, site, lambda: None)
    around = nn.Sequential(script, nn.Linear(6, 4))
    assert seen(around, "1", lambda: around(X)) == 40


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_quantised_models():
    dynamic = torch.ao.quantization.quantize_dynamic(network(), {nn.Linear}, dtype=torch.qint8)
    assert seen(dynamic, "0", lambda: dynamic(X)) == 40


def test_lazy_modules_get_their_weights_in_the_users_own_call():
    class Lazy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = nn.LazyLinear(8), nn.LazyLinear(6)

        def forward(self, x: Tensor) -> Tensor:
            x = self.inner(x)
            return self.head(torch.softmax(x @ x.transpose(1, 2), -1) @ x)

    for times in (1, 3):
        model, x = Lazy(), torch.randn(4, 5, 7)
        assert seen(model, "head", lambda m=model, x=x: m(x), times) == 20 * times
    flat = nn.Sequential(nn.LazyLinear(8), nn.LazyLinear(6))
    assert seen(flat, "1", lambda: flat(X), 2) == 80


def refused(match: str, model: Any, site: str, run: Any) -> None:
    went_on: list[bool] = []

    def whole() -> None:
        run()
        went_on.append(True)

    with pytest.raises(PolycodeError, match=match):
        seen(model, site, whole)
    assert went_on == [True]


def test_what_cannot_be_read_is_said_after_the_users_call():
    meta = network().to("meta")
    refused("on the meta device", meta, "0", lambda: meta(X.to("meta")))

    class Sparse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.hold = nn.Linear(8, 6), nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return self.hold(self.linear(x).relu().to_sparse()).to_dense()

    sparse = Sparse()
    refused("a sparse tensor", sparse, "hold", lambda: sparse(X))
    assert seen(sparse, "linear", lambda: sparse(X)) == 40
    model = network()
    outside = "a transform of torch.func.*outside of it"
    refused(outside, model, "0", lambda: torch.vmap(model)(X))
    loss = torch.func.grad(lambda x: model(x).sum())
    refused(outside, model, "0", lambda: loss(X))
    broken = X.clone()
    broken[0, 0] = float("nan")
    refused("NaN or infinite", model, "0", lambda: model(broken))


def test_accelerates_offloading():
    accelerate = pytest.importorskip("accelerate")
    config = transformers.LlamaConfig(
        vocab_size=60,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    model = transformers.LlamaModel(config).eval()
    accelerate.cpu_offload(model, execution_device="cpu")
    ids, mask = torch.randint(0, 60, (4, 6)), torch.ones(4, 6, dtype=torch.long)
    mask[0, 4:] = 0
    assert seen(model, "layers.0.mlp", lambda: model(input_ids=ids, attention_mask=mask)) == 22
    # With as many positions as rows the shapes of one call leave two readings.
    refused("more than one reading", model, "layers.0.mlp", lambda: model(input_ids=ids[:, :4]))


def test_the_root_need_not_be_called():
    """A PEFT model generates by the model inside of it."""

    class Outer(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.base_model = inner

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return self.base_model(*args, **kwargs)

    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=60, n_embd=16, n_layer=1, n_head=2, n_positions=30)
    model = Outer(Outer(transformers.GPT2LMHeadModel(config).eval()))
    ids = torch.randint(5, 60, (6, 5))
    options = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    inner = model.base_model.base_model
    site = "base_model.base_model.transformer.h.0"
    assert seen(model, site, lambda: inner.generate(ids, **options)) == 30 + 24
    spread = nn.DataParallel(network())
    assert seen(spread, "module.0", lambda: spread(X)) == 40


def test_dry_runs_have_no_values():
    from torch._subclasses.fake_tensor import FakeTensorMode

    model = network()

    def run() -> None:
        with FakeTensorMode(allow_non_fake_inputs=True):
            model(X)
        torch.export.export(model, (X,))
        model(X)

    assert seen(model, "0", run) == 40
    unflattened = torch.export.unflatten(torch.export.export(model, (X,)))
    assert seen(unflattened, "0", lambda: unflattened(X)) == 40


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_what_analyze_makes_of_them():
    accelerate = pytest.importorskip("accelerate")

    def samples(model: Any, data: Any = X, site: Any = "0") -> int:
        return int(
            pc.analyze(model, data, Mean(), site)["0" if site is None else site, "mean"].n_samples
        )

    offloaded = network()
    accelerate.cpu_offload(offloaded, execution_device="cpu")
    assert samples(offloaded) == 40
    exported = torch.export.export(network(), (X[:16],))
    assert samples(torch.export.unflatten(exported), X[:16]) == 16
    with pytest.raises(pc.ModelError, match=r"does not run on the data, torch.float32 \(8, 8\)"):
        samples(torch.export.unflatten(exported), X[:24])
    assert samples(nn.Sequential(nn.LazyLinear(8), nn.LazyLinear(6))) == 40
    assert samples(network(), [X[:0], X[:15], X[:0], X[15:]]) == 40
    for site in ("0", None):
        with pytest.raises(pc.ModelError, match="TorchScript module"):
            samples(torch.jit.trace(network(), X), site=site)
    with pytest.raises(pc.DataError, match="meta device"):
        samples(network().to("meta"))
    with pytest.raises(pc.DataError, match="no row"):
        samples(network(), [X[:0]])


def test_empty_batches_and_other_numbers_of_calls():
    model = network()
    assert seen(model, "0", lambda: (model(X[:0]), model(X))) == 40

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.step, self.out, self.often = nn.Linear(8, 8), nn.Linear(8, 6), 1

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(self.often):
                x = self.step(x)
            self.often = 3 - self.often
            return self.out(x)

    for site, expected in (("step:0", 160), ("step:1", 80), ("out", 160)):
        loop = Loop()
        assert seen(loop, site, lambda loop=loop: loop(X), 4) == expected
    loop = Loop()
    refused("say which call", loop, "step", lambda: (loop(X), loop(X)))
