"""Inputs: texts and images, from the user's files, from the hub, or embedded."""

from pathlib import Path

from polycode_plugins.data.images import ImageBatch, image_batches
from polycode_plugins.data.pictures import Picture, Pictures, image_pictures
from polycode_plugins.data.stimuli import MovingDot, moving_dot
from polycode_plugins.data.text import Document, Documents, text_documents
from polycode_plugins.data.windows import TokenBatch, token_windows

TINY_GPT2 = Path(__file__).parent / "tiny-gpt2"
"""The folder of the embedded default model (Hugging Face format, tokenizer included)."""

__all__ = [
    "TINY_GPT2",
    "Document",
    "Documents",
    "ImageBatch",
    "MovingDot",
    "Picture",
    "Pictures",
    "TokenBatch",
    "image_batches",
    "image_pictures",
    "moving_dot",
    "text_documents",
    "token_windows",
]
