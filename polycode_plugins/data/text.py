"""Text sources: files, folders, JSON lines, Hugging Face data sets, strings, the embedded text.

Each is read lazily, document by document, and can be iterated again.
"""

from __future__ import annotations

import codecs
import inspect
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polycode_plugins.data.corpus import docstrings
from polycode_plugins.data.files import files_in
from polycode_plugins.data.incoming import is_conversation
from polycode_plugins.errors import DataError, near
from polycode_plugins.files.content import ContentDigest
from polycode_plugins.files.guards import json_value

SUFFIXES = (".txt", ".text", ".md", ".markdown", ".rst", ".jsonl")
"""What a folder is searched for; a file that is named itself may have any suffix."""

LONGEST = 2**20
"""Bytes of a text file that make one document at most; a longer file is cut at line ends."""

Messages = tuple[dict[str, Any], ...]
"""A conversation: messages with a `role` and a `content`, the first one first."""

_Texts = Iterator[tuple[str, str | Messages]]  # (origin, text or conversation)


@dataclass(frozen=True)
class Document:
    """One text: its place in the source (from 0), its characters, and where it was found.

    Of a conversation `text` is its messages as JSON, and `messages` they themselves.
    """

    id: int
    text: str
    origin: str
    messages: Messages | None = None


class Documents:
    """A lazy sequence of `Document` that can be iterated again; made by `text_documents`.

    Texts of white space alone are passed over; `skipped` says how many the latest iteration met.
    """

    def __init__(self, name: str, read: Callable[[], _Texts]) -> None:
        self.name = name
        self.skipped = 0
        self._read = read
        self._digest: ContentDigest | None = None

    def __iter__(self) -> Iterator[Document]:
        self._digest = digest = ContentDigest()
        self.skipped = count = 0
        for origin, content in self._read():
            messages = None if isinstance(content, str) else content
            text = content if isinstance(content, str) else json.dumps(content, sort_keys=True)
            if not text.strip():
                self.skipped += 1
                continue
            try:
                digest.add(text.encode())
            except UnicodeEncodeError as error:
                raise DataError(
                    f"{origin} holds half a surrogate pair at character {error.start}, which no "
                    f"tokenizer can read; remove it"
                ) from None
            yield Document(count, text, origin, messages)
            count += 1
        if not count:
            raise DataError(
                f"{self.name} holds no text (white space only: {self.skipped}); "
                f"give a source with words in it"
            )

    def digest(self) -> str:
        """SHA-256 (hexadecimal) of the texts that the latest iteration has yielded so far.

        It depends on the texts and their order, not on where they were found. Raises `DataError`
        before the first iteration.
        """
        if self._digest is None:
            raise DataError(f"{self.name} was not read yet; iterate over it, then ask its digest")
        return self._digest.hexdigest()


def text_documents(
    source: str | os.PathLike[str] | Iterable[str | Sequence[dict[str, Any]]] | None = None,
    *,
    text_field: str = "text",
) -> Documents:
    """The documents of `source`, read lazily.

    `source` is one of
    - `None`, `"embedded"`, `"embedded:train"` or `"embedded:validation"`: docstrings of Python's
      standard library, all of them or the split that the embedded model did or did not train on;
    - the path of a text file: one document (several where it is longer than `LONGEST`);
    - the path of a folder: its files with one of `SUFFIXES`, hidden ones aside, sorted by path and
      recursively;
    - the path of a `.jsonl` file: one document a line, in its `text_field`, or in `messages` where
      it has no such field;
    - `"hf:NAME"`, `"hf:NAME:CONFIG"` or `"hf:NAME:CONFIG:SPLIT"` (split `train` unless given): a
      data set of the Hugging Face hub or a local folder or file that `datasets.load_dataset`
      reads, streamed, one document a row, in its `text_field`;
    - an iterable of strings, one document each. A generator can be iterated only once.

    A document is a string, or a conversation: a list of messages, each with a `role` and a
    `content`.

    Raises `DataError` for a source that does not exist, here or while iterating for one that is
    empty, is not UTF-8 or lacks the field.
    """
    if source is None:
        source = "embedded"
    if isinstance(source, str | os.PathLike):
        name = os.path.expanduser(source)
        if name == "embedded":
            return Documents("the embedded text", docstrings)
        if name == "embedded:train":
            return Documents("the embedded text (train)", lambda: docstrings("train"))
        if name == "embedded:validation":
            return Documents("the embedded text (validation)", lambda: docstrings("validation"))
        if name.startswith("hf:"):
            return Documents(name, lambda: _hugging_face(name, text_field))
        if os.path.isdir(name):
            return Documents(f"the folder {name}", lambda: _folder(Path(name), text_field))
        if os.path.isfile(name):
            return Documents(f"the file {name}", lambda: _file(Path(name), text_field))
        # A long text passed by mistake is cut; of a path, its end says most.
        shown = name if len(name) <= 240 else f"{name[:120]}...{name[-100:]}"
        raise DataError(
            f"the text source {shown!r} is neither a file nor a folder; name one that exists, "
            "'embedded', or 'hf:NAME' for a data set (texts themselves go in a list, and images to "
            "a model of images, such as resnet18)"
        )
    if not isinstance(source, Iterable):
        raise DataError(
            f"texts cannot be read from a {type(source).__name__}; "
            f"give a path, 'hf:NAME', 'embedded' or a list of strings"
        )
    return Documents("the list of texts", lambda: _strings(source))


def _strings(texts: Iterable[str | Sequence[dict[str, Any]]]) -> _Texts:
    for index, text in enumerate(texts):
        if isinstance(text, str):
            yield f"text {index}", text
        elif is_conversation(text):
            yield f"text {index}", _messages(text, f"text {index}")
        else:
            raise DataError(
                f"text {index} of the list is {type(text).__name__}, not a string; "
                f"give one string for each document"
            )


def _messages(value: Sequence[Mapping[str, object]], where: str) -> Messages:
    for number, message in enumerate(value):
        parts = (
            (message.get("role"), message.get("content"))
            if isinstance(message, Mapping)
            else (None, None)
        )
        if not all(isinstance(part, str) for part in parts):
            raise DataError(
                f"message {number} of {where} is no object with a role and a content that are "
                f'strings; write messages such as {{"role": "user", "content": "..."}}'
            )
    return tuple(dict(message) for message in value)


def _folder(folder: Path, field: str) -> _Texts:
    for file in files_in(folder, SUFFIXES, "text files"):
        yield from _file(folder / file, field)


def _file(path: Path, field: str) -> _Texts:
    try:
        yield from _json_lines(path, field) if path.suffix.lower() == ".jsonl" else _plain(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); check its permissions"
        ) from error


def _plain(path: Path) -> _Texts:
    """The file as one text, or as several of about `LONGEST` bytes that end where a line ends."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    rest, offset, part, last = "", 0, 0, False
    with path.open("rb") as stream:
        while not last:
            block = stream.read(LONGEST)
            last = len(block) < LONGEST
            held = len(decoder.getstate()[0])
            try:
                text = rest + decoder.decode(block, final=last)
            except UnicodeDecodeError as error:
                raise _not_utf8(path, f"byte {offset - held + error.start}") from None
            offset += len(block)
            text = text if part else text.removeprefix("\ufeff")
            cut = len(text) if last else text.rfind("\n") + 1 or len(text)
            text, rest = text[:cut], text[cut:]
            if text or not part:
                yield (f"{path}#{part}" if part else str(path)), text
            part += 1


def _json_lines(path: Path, field: str) -> _Texts:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                row = json_value(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError as error:
                raise _not_utf8(path, f"line {number}, byte {error.start} of it") from None
            except ValueError as error:
                raise DataError(
                    f"{where} cannot be read as JSON ({error}); write one JSON object a line"
                ) from None
            yield where, _field_of(row, field, where)


def _not_utf8(path: Path, where: str) -> DataError:
    return DataError(f"{path} is not UTF-8 at {where}; convert it to UTF-8 or leave it out")


def _field_of(row: object, field: str, where: str) -> str | Messages:
    if not isinstance(row, dict):
        raise DataError(
            f"{where} is a JSON {type(row).__name__}, not an object; "
            f'write objects such as {{"{field}": "..."}}'
        )
    if field not in row and field == "text" and is_conversation(row.get("messages")):
        field = "messages"
    if field not in row:
        seen = ", ".join(sorted(map(str, row))) or "none"
        raise DataError(
            f"{where} has no field {field!r} (fields: {seen}); "
            f"name the field that holds the text{near(field, map(str, row))}"
        )
    text = row[field]
    if is_conversation(text):
        return _messages(text, where)
    if not isinstance(text, str):
        raise DataError(
            f"field {field!r} of {where} is {type(text).__name__}, not a string; "
            f"name the field that holds the text"
        )
    return text


def _hugging_face(name: str, field: str) -> _Texts:
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"{name} needs the package 'datasets', which cannot be imported ({error}); "
            f"install it with: pip install 'polycode-plugins[transformer-lens]'"
        ) from error
    path, config, split = [*name.removeprefix("hf:").split(":", 2), "", ""][:3]
    builders = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}
    suffix = Path(path).suffix.lower()
    local = os.path.isfile(path) and suffix in builders
    try:
        takes = inspect.signature(datasets.load_dataset).parameters
        rows = datasets.load_dataset(
            builders[suffix] if local else path,
            config or None,
            data_files=path if local else None,
            split=split or "train",
            streaming=True,
            # Up to version 3 it ran a data set's own script, or asked on a prompt; later none is.
            **({"trust_remote_code": False} if "trust_remote_code" in takes else {}),
        )
        for index, row in enumerate(rows):
            where = f"{path}[{index}]"
            yield where, _field_of(row, field, where)
    except (datasets.exceptions.DatasetsError, OSError, ValueError, RuntimeError) as error:
        # ValueError: an unknown configuration or split; OSError: no such data set, or no network.
        if "trust_remote_code" in str(error) or "scripts are no longer" in str(error):
            raise DataError(
                f"{name} is made by a script of its own, which is not run; read that script, run "
                "it yourself (datasets.load_dataset), and pass the rows, or save them with "
                "to_parquet"
            ) from error
        cause = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else "no cause"
        raise DataError(
            f"{name} cannot be read as a Hugging Face data set ({cause}); check the name, "
            f"written hf:NAME:CONFIG:SPLIT, and the network"
        ) from error
