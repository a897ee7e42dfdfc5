"""The `vllm` adapter: a model that vLLM runs, with statistics gathered in its workers.

The engine schedules as it likes: prompts in chunks, texts of many requests packed, decoding one
token at a time. What reaches the statistics are whole texts, each token once.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from polycode_plugins.activations import Site
from polycode_plugins.adapters.base import Adapter, Batch, Capture, Sink
from polycode_plugins.adapters.engine import EngineCapture
from polycode_plugins.adapters.text import check_tokens, language_batches, special_ids, token_text
from polycode_plugins.adapters.vllm.listening import InProcess, InWorkers, Listener
from polycode_plugins.adapters.vllm.loading import (
    PREFIX,
    check_settings,
    forward_context,
    is_engine,
    library_version,
    load_engine,
    vllm_library,
)
from polycode_plugins.adapters.vllm.reader import Reader
from polycode_plugins.adapters.vllm.requests import prompts, rows_of
from polycode_plugins.adapters.vllm.sites import places
from polycode_plugins.data_options import DataOptions
from polycode_plugins.errors import DataError, ModelError
from polycode_plugins.files.weights import FORMAT

_NAME = "polycode-"  # of requests of ours


class VLLMAdapter(Adapter):
    """A model in vLLM.

    Sites have the names of Hugging Face's modules ("model.layers.3", "model.layers.3.mlp.up_proj",
    and with `:in` what goes into one: "model.layers.3.mlp.down_proj:in", the neurons) and those of
    TransformerLens ("blocks.3.hook_resid_post"). A block's stream is the sum of the two parts that
    vLLM carries, which is proven when it first runs; projections that vLLM fuses are parted.

    Args:
        model: a live `vllm.LLM`, or a folder in Hugging Face format or a name on the hub, with
            "vllm:" before it or with adapter="vllm". A live one has to be made with
            `enforce_eager=True`, `enable_prefix_caching=False` and `worker_extension_cls=
            "polycode_plugins.runs.engine_worker.StatisticsWorker"`.
        dtype: of a model that is loaded here: "float32" (the default), "bfloat16", ...
        tensor_parallel: workers of a model that is loaded here. With several, sites of which each
            holds a share (heads, neurons) are not offered.
        engine: more settings for `vllm.LLM`, such as {"max_model_len": 1024}.
        prepend_bos: put the beginning-of-text token before each window of text; by default what
            the tokenizer does. It never enters the statistics unless special tokens are asked for.
        include_special: let special tokens into the statistics of requests of others
            (`pc.attach`). `pc.analyze` has an argument of the same name.
        longest: cut the texts of requests of others into pieces of this many tokens, so that what
            waits in the workers for its end is bounded; by default a text is one piece.
        waiting: MiB that texts which have not ended may take in a worker.

    Raises:
        ModelError: for a model that does not load, and an engine that statistics cannot be
            gathered in.
        PluginError: when vLLM is not installed.
    """

    name = "vllm"
    finds_masks = True
    gathers = True

    def __init__(
        self,
        model: Any,
        *,
        dtype: str | None = None,
        tensor_parallel: int = 1,
        engine: Mapping[str, Any] | None = None,
        prepend_bos: bool | None = None,
        include_special: bool = False,
        longest: int | None = None,
        waiting: int = 1024,
    ) -> None:
        self._name: str | None = None
        if isinstance(model, str | Path):
            self._name = str(model).removeprefix(PREFIX)
            model = load_engine(model, dtype, tensor_parallel, dict(engine or {}))
        elif dtype is not None or engine or tensor_parallel != 1:
            raise ModelError(
                "dtype=, tensor_parallel= and engine= are for loading, and this LLM is live already"
            )
        if not is_engine(model):
            raise ModelError(
                f"{type(model).__name__} is no vllm.LLM; pass one, or a folder with adapter='vllm'"
            )
        for what, value in (("longest", longest), ("waiting", waiting)):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise DataError(f"{what}= is a whole number above 0, not {value!r}")
        self._llm = model
        self._config = model.llm_engine.vllm_config
        check_settings(self._config)
        self._prepend_bos, self._include_special = prepend_bos, include_special
        self._longest_piece, self._room = longest, waiting * 2**20
        self._known: dict[str, Any] | None = None
        self._open: list[Listener] = []
        self._asked = 0

    @classmethod
    def accepts(cls, model: object) -> bool:
        """A live `vllm.LLM`, or a folder or name with "vllm:" before it."""
        return is_engine(model) or (isinstance(model, str) and model.startswith(PREFIX))

    @property
    def engine(self) -> Any:
        """The `vllm.LLM`."""
        return self._llm

    @property
    def model(self) -> Any:
        """The model where it runs in this process, else the `vllm.LLM`."""
        worker = self._worker
        return self._llm if worker is None else worker.model_runner.get_model()

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self._llm.get_tokenizer()

    @property
    def _worker(self) -> Any:
        """The only worker, where it is in this process; else None."""
        executor = getattr(self._llm.llm_engine, "model_executor", None)
        wrapper = getattr(executor, "driver_worker", None)
        alone = self._config.parallel_config.tensor_parallel_size == 1
        return getattr(wrapper, "worker", None) if alone else None

    def _call(self, method: str, *arguments: str) -> list[Any]:
        """What every worker answers; the first one is the one that gathers."""
        answers: list[Any] = self._llm.collective_rpc(method, args=arguments)
        return answers

    def _about(self) -> dict[str, Any]:
        if self._known is None:
            first, *others = map(json.loads, self._call("polycode_about"))
            if "error" in first:
                raise ModelError(first["error"])
            if others:  # each holds a share of the weights
                shares = [str(one["fingerprint"]) for one in (first, *others)]
                digest = hashlib.sha256(" ".join(shares).encode()).hexdigest()
                first |= {"fingerprint": f"{FORMAT}:{digest}", "parameters": None}
            self._known = first
        return self._known

    # -- sites -----------------------------------------------------------------------------------

    def sites(self, example: Batch | None = None) -> list[Site]:
        """All sites of the model in the order in which they fire; `example` is not needed."""
        return [Site(**{**s, "axes": tuple(s["axes"])}) for s in self._about()["sites"]]

    def default_sites(self, sites: Sequence[Site]) -> list[str]:
        """The residual stream after each block."""
        return [s.name for s in sites if s.name.endswith(".hook_resid_post")]

    # -- capture ---------------------------------------------------------------------------------

    @contextmanager
    def capture(self, sites: Sequence[Site], sink: Sink) -> Iterator[Capture]:
        """Hooks in the model where it runs in this process; `gathering` does for any engine.

        Raises:
            ModelError: where the model runs in processes of its own.
        """
        worker = self._worker
        if worker is None:
            raise ModelError(
                "the activations of this engine stay in its workers, so statistics can be had "
                "(pc.analyze, pc.attach) and activations cannot; set "
                "VLLM_ENABLE_V1_MULTIPROCESSING=0 before the LLM is made, or read the folder with "
                "adapter='transformers'"
            )
        live = Capture(sites, sink)
        known = {p.name: p for p in places(self.model, int(self._about()["width"]))}
        reader = Reader(
            worker.model_runner,
            self.model,
            [known[site.name] for site in sites],
            sink,
            forward_context,
            special=self._special(),
            text=token_text(self.tokenizer),
            longest=self._longest_piece,
            room=self._room,
            most=math.inf,
        )
        listener = InProcess(reader, live)
        self._open.append(listener)
        try:
            yield live
            listener.ended(self._busy())
        finally:
            self._open.remove(listener)
            reader.close()

    @contextmanager
    def gathering(
        self,
        sites: Sequence[Site],
        metrics: Sequence[Mapping[str, Any]],
        *,
        rows: int | None = None,
        memory: int | None = None,
    ) -> Iterator[EngineCapture]:
        """Statistics of all requests while open, gathered in the worker; see `Adapter.gathering`.

        Requests that are under way when results are asked for are not in them.
        """
        settings = {
            "sites": [site.name for site in sites],
            "metrics": list(metrics),
            "special": self._special(),
            "longest": self._longest_piece,
            "room": self._room,
            "rows": rows,
            "memory": memory,
        }
        handle = str(self._call("polycode_open", json.dumps(settings))[0])
        live = InWorkers(sites, self._call, self._busy, handle)
        self._open.append(live)
        try:
            yield live
        finally:
            self._open.remove(live)
            self._call("polycode_close", handle)

    def _special(self) -> list[int]:
        if self.mask is None:
            return []
        if self.mask != "given":
            raise DataError(
                "mask= of an engine's requests is 'given' (special tokens are left out) or None "
                "(every token counts); an engine schedules rows as it likes, so give no tensor or "
                "function"
            )
        return [] if self._include_special else special_ids(self.tokenizer)

    def _busy(self) -> bool:
        return bool(self._llm.llm_engine.has_unfinished_requests())

    # -- running ---------------------------------------------------------------------------------

    def forward(self, batch: Batch, stop_after: Site | None = None) -> None:
        """Run the rows of a batch through the engine; a step has no early end.

        Raises:
            ModelError: where requests of others are under way.
        """
        engine = self._llm.llm_engine
        if self._busy():
            raise ModelError(
                "this LLM has requests under way, whose answers would be lost; wait for them "
                "(llm.wait_for_completion()) before analysing"
            )
        rows = {f"{_NAME}{self._asked + i}": row for i, row in enumerate(rows_of(batch))}
        self._asked += len(rows)
        for listener in self._open:
            listener.know(rows)
        params = vllm_library().SamplingParams(max_tokens=1, temperature=0.0, detokenize=False)
        names: list[str] = []
        try:
            for name, tokens in zip(rows, prompts(batch), strict=True):
                names.append(engine.add_request(name, {"prompt_token_ids": tokens}, params))
            while engine.has_unfinished_requests():
                engine.step()
        except BaseException:
            engine.abort_request(names, internal=True)
            raise
        for listener in self._open:
            listener.ended(False)

    # -- data ------------------------------------------------------------------------------------

    def batches(self, data: Any, options: DataOptions) -> Iterable[Batch]:
        """Windows of text, or tokens as they are, as the `transformers` adapter reads them.

        Args:
            data: a file, a folder, JSON lines, `hf:name`, a list of texts or conversations, None
                for the embedded corpus, or tokens int64 [rows, position].
        """
        return self._readable(
            language_batches(
                data, self.tokenizer, options, longest=self._longest, prepend_bos=self._prepend_bos
            )
        )

    def _readable(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        size = int(self._config.model_config.get_vocab_size())
        for batch in batches:
            tokens = (
                batch.inputs["input_ids"] if isinstance(batch.inputs, Mapping) else batch.inputs
            )
            check_tokens(tokens, size)
            if tokens.shape[1] > self._longest:
                raise DataError(
                    f"the rows have {tokens.shape[1]} tokens, and this engine reads "
                    f"{self._longest}; cut them shorter, or make it with a longer max_model_len"
                )
            yield batch

    @property
    def _longest(self) -> int:
        """Tokens of a prompt; the engine generates at least one more."""
        return int(self._config.model_config.max_model_len) - 1

    def example(self) -> Batch | None:
        """Two windows of the embedded text."""
        context = min(DataOptions().context, self._longest)
        return next(iter(self.batches(None, DataOptions(batch_size=2, limit=2, context=context))))

    def describe(self) -> dict[str, Any]:
        """Adds name, weights' fingerprint and number format, workers, and the version of vLLM."""
        about = self._about()
        return {
            "adapter": self.name,
            "type": about["type"],
            "name": self._name or str(self._config.model_config.model),
            "parameters": about["parameters"],
            "dtype": str(self._config.model_config.dtype).removeprefix("torch."),
            "fingerprint": about["fingerprint"],
            "tensor_parallel": int(self._config.parallel_config.tensor_parallel_size),
            "prepend_bos": self._prepend_bos,
            "vllm": library_version(),
        }
