"""What is proven about the axes of one model's tensors, by trials of it.

A copy of the model without hooks (`shadow`) is run on small inputs of several sizes (`trial`): on
the meta device where its code needs no values, else with its own weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from polycode_plugins.adapters.evidence.axes import Input, Reading, main_leaf
from polycode_plugins.adapters.evidence.calls import Call
from polycode_plugins.adapters.evidence.layout import own_layout
from polycode_plugins.adapters.evidence.shadow import Leaf, NotYet, Place, leaves, proper
from polycode_plugins.adapters.evidence.trial import Trial
from polycode_plugins.adapters.undisturbed import undisturbed

_TOKENS = ("input_ids", "inputs_embeds", "attention_mask")  # whose axes are [batch, position, ..]


class Axes:
    """What is proven about the axes of one model's tensors."""

    def __init__(self) -> None:
        self._proofs: dict[Any, Proof] = {}

    def proof(self, call: Call, places: Sequence[Place], *, of_rows: bool = False) -> Proof:
        """What varying the arguments of an outermost call shows about the tensors at `places`.

        Args:
            call: the call.
            places: where the tensors are.
            of_rows: whether the first axis of what the model is called with is known to be its
                rows, because the data were cut into batches along it.
        """
        main = main_leaf(call.arguments)
        key = (id(call.module), None if main is None else (main.name, main.values.dim()), of_rows)
        known = self._proofs.get(key)
        if known is None or not known.covers(places):
            known = Proof(call, places, of_rows=of_rows)
            if not known.not_yet:
                self._proofs[key] = known
        return known


class Proof:
    """What trials on inputs of several sizes show; made once for each kind of call.

    Attributes:
        input: the axes of the input.
        readings: what is known of the tensors that were asked for.
        why_not: why nothing could be tried; "" where it could.
        not_yet: whether it can be tried when the model has run.
    """

    def __init__(self, call: Call, places: Sequence[Place], *, of_rows: bool) -> None:
        self.readings: dict[Place, Reading] = {}
        self.why_not = ""
        self.not_yet = False
        self._places = set(places)
        main = main_leaf(call.arguments)
        contract = has_contract(call, main)
        if main is None:
            self.why_not = "it is called without a tensor"
            self.input = Input(None, None, self.why_not)
            return
        # Without values where nothing has to be compared, else with the weights.
        for device in ("meta", None) if contract else (None,):
            with undisturbed(), torch.no_grad():
                try:
                    trial = Trial(call, list(places), device, contract=contract)
                    self.input = trial.input(of_rows)
                    for place in places:
                        self.readings[place] = trial.reading(place, self.input)
                    self.why_not = ""
                    return
                except Exception as error:  # whatever a model's code does on sizes it never had
                    self.readings.clear()
                    self.not_yet = isinstance(error, NotYet)
                    self.why_not = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        self.input = _by_modules(call.module, main, contract=contract or of_rows)

    def covers(self, places: Sequence[Place]) -> bool:
        """Whether these tensors were asked for."""
        return self._places.issuperset(places)


def has_contract(call: Call, main: Leaf | None) -> bool:
    """Whether the first axis of every input is its batch by what the model is.

    Models of transformers say so, images [batch, channel, height, width] have one layout, and
    arguments that are named as transformers names them have its meaning.
    """
    if main is None:
        return False
    model = proper(call.module)
    if hasattr(model, "config") and hasattr(model, "main_input_name"):
        return True
    if main.values.dim() >= 4:
        return True
    named = {leaf.name.rpartition(".")[2] for leaf in leaves(call.arguments)}
    return not named.isdisjoint(_TOKENS)


def _by_modules(model: nn.Module, main: Leaf, *, contract: bool) -> Input:
    """The axes of the input from recurrent and attention layers, which say what they read."""
    values = main.values
    length = (
        1 if values.dim() > 1 and not (values.dim() == 2 and values.is_floating_point()) else None
    )
    if contract:
        return Input(0, length)
    if values.dim() == 2 and values.is_floating_point():
        return Input(0)
    first = any(own_layout(m) == "sequence-first" for m in model.modules())
    second = any(getattr(m, "batch_first", False) is True for m in model.modules())
    if first != second:
        return Input(1, 0) if first else Input(0, 1)
    return Input(None, None, f"it was called with {main.name!r} of shape {tuple(values.shape)}")
