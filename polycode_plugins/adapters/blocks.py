"""Where the blocks of a network are: the sites worth a first look, at any depth of nesting.

A block is a module with parts of its own that stands in a row of such modules: a residual block of
a layer, a transformer block of a model. Its output is what the next one reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import nn

_PLAIN = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
ENOUGH = 3  # this many modules with parts, side by side, are blocks even outside of a container


@dataclass(frozen=True)
class _Entry:
    path: str
    module: nn.Module
    in_row: bool  # it stands in a container

    @property
    def composite(self) -> bool:
        # Auxiliary classifiers hang off the network and run in training only.
        return any(True for _ in self.module.children()) and not (
            type(self.module).__name__.endswith("Aux")
        )


def block_paths(root: nn.Module, prefix: str = "") -> list[str]:
    """Paths of the stem and the blocks of `root`, in the order in which they are defined.

    Containers (Sequential, ModuleList, ModuleDict, and a Sequential of nothing but blocks) are
    looked into; where that finds fewer than `ENOUGH` modules with parts and none of them in a
    container, those modules are looked into as well (a vision transformer's encoder, the model
    inside a language model with a head). The stem is the last module before the first block. A
    network without blocks (VGG, a perceptron) has its activation functions, or nothing.
    """
    start, path = root, prefix
    backbone = getattr(root, "backbone", None)
    if isinstance(backbone, nn.Module):  # of a detector or a segmentation model
        start, path = backbone, f"{prefix}.backbone".lstrip(".")
    entries = list(_walk(start, path, in_row=False))
    while not _found(entries):
        wider = [inner for entry in entries for inner in _inside(entry)]
        if len(wider) == len(entries):
            break
        entries = wider
    places = [i for i, entry in enumerate(entries) if entry.composite]
    if not places:
        return [e.path for e in entries if type(e.module).__module__.endswith(".activation")]
    stem = entries[: places[0]][-1:]
    return [entry.path for entry in (*stem, *(entries[i] for i in places))]


def listed_blocks(root: nn.Module) -> list[str]:
    """Paths of the stem and of the entries of the outermost ModuleLists, in order of definition.

    Models of transformers keep their blocks in a ModuleList, however deep; lists inside a block
    (experts, parts) are not looked at. The stem is the module before the first list.
    """
    lists = [
        (path, module)
        for path, module in root.named_modules()
        if isinstance(module, nn.ModuleList)
        and any(True for entry in module for _ in entry.children())
    ]
    outermost = [
        (path, module)
        for path, module in lists
        if not any(path.startswith(f"{other}.") for other, _ in lists)
    ]
    if not outermost:
        return []
    found = [f"{path}.{index}" for path, module in outermost for index in range(len(module))]
    parts = outermost[0][0].split(".")
    for depth in range(len(parts) - 1, -1, -1):  # the nearest module that is defined before it
        above = ".".join(parts[:depth])
        names = [name for name, _ in root.get_submodule(above).named_children()]
        at = names.index(parts[depth])
        if at:
            return [".".join([*parts[:depth], names[at - 1]]), *found]
    return found


def sites_at(paths: Iterable[str], names: Sequence[str]) -> list[str]:
    """The sites out of `names` that stand for `paths`: each by its name, or all calls of it."""
    wanted = set(paths)
    return [n for n in names if n in wanted or n.rpartition(":")[0] in wanted]


def _walk(module: nn.Module, path: str, *, in_row: bool) -> Iterator[_Entry]:
    for name, child in module.named_children():
        at = f"{path}.{name}" if path else name
        if _is_container(child):
            yield from _walk(child, at, in_row=True)
        else:
            yield _Entry(at, child, in_row)


def _is_container(module: nn.Module) -> bool:
    if type(module) in _PLAIN:
        return True
    if not isinstance(module, nn.Sequential) or type(module).forward is not nn.Sequential.forward:
        return False
    return len(module) > 0 and all(any(True for _ in child.children()) for child in module)


def _found(entries: list[_Entry]) -> bool:
    composites = [entry for entry in entries if entry.composite]
    return len(composites) >= ENOUGH or any(entry.in_row for entry in composites)


def _inside(entry: _Entry) -> list[_Entry]:
    """What is inside an entry, or the entry itself where that is no finer row of blocks."""
    inner = list(_walk(entry.module, entry.path, in_row=False)) if entry.composite else []
    return inner if any(i.composite for i in inner) else [entry]
