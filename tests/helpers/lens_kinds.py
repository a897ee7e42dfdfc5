"""Which kinds of model the installed TransformerLens has."""

from importlib.metadata import version

# What the installed major has: HookedTransformer until 3, TransformerBridge from 3 on.
KINDS = {"2": ("hooked",), "3": ("bridge", "hooked")}.get(
    version("transformer-lens").partition(".")[0], ("bridge",)
)
