"""Every text source yields the planted documents, twice over, and says what is wrong with it."""

from __future__ import annotations

import json
import sys
import types

import pytest

from polycode_plugins.data import corpus, text
from polycode_plugins.data.text import Document, text_documents
from polycode_plugins.errors import DataError


def texts(source, **options):
    return [document.text for document in text_documents(source, **options)]


def test_strings_are_documents_and_empty_ones_are_counted():
    documents = text_documents(["a", "", " \n", "b"])
    assert list(documents) == [Document(0, "a", "text 0"), Document(1, "b", "text 3")]
    assert documents.skipped == 2
    assert list(documents) == list(documents)


def test_a_file_is_one_document_as_it_stands(tmp_path):
    path = tmp_path / "notes.log"
    path.write_bytes("\ufeffone\r\n\r\ntwo é\n".encode())
    assert texts(path) == ["one\r\n\r\ntwo é\n"]
    assert texts(str(path)) == texts(path)


@pytest.mark.parametrize("longest", [1, 2, 3, 7, 1000])
def test_a_long_file_is_cut_at_line_ends_and_nothing_is_lost(tmp_path, monkeypatch, longest):
    whole = "première ligne\n" + "日本語" * 5 + "\n\nlast line"
    path = tmp_path / "long.txt"
    path.write_text(whole, encoding="utf-8")
    monkeypatch.setattr(text, "LONGEST", longest)
    origins, parts = zip(*text._plain(path), strict=True)
    assert "".join(parts) == whole
    assert len(set(origins)) == len(origins)
    assert all(part.endswith("\n") or "\n" not in part for part in parts[:-1])
    assert (len(parts) == 1) == (longest == 1000)


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path):
    for name in ("b.txt", "a/z.md", "a/y.jsonl", ".hidden/c.txt", "B.rst", "picture.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"text": name}) if name.endswith("jsonl") else name)
    assert texts(tmp_path) == ["B.rst", "a/y.jsonl", "a/z.md", "b.txt"]


def test_json_lines_and_their_field(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "x", "body": "1"}\n\n{"text": "y", "body": "2"}\n')
    assert list(text_documents(path))[1] == Document(1, "y", f"{path}:3")
    assert texts(path, text_field="body") == ["1", "2"]


def test_a_local_hugging_face_data_set(tmp_path):
    pytest.importorskip("datasets")
    for name in ("train", "test"):
        rows = [{"text": f"{name} {i}", "body": str(i)} for i in range(3)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    assert texts(f"hf:{tmp_path}") == ["train 0", "train 1", "train 2"]
    assert texts(f"hf:{tmp_path}:default:test", text_field="body") == ["0", "1", "2"]
    assert texts(f"hf:{tmp_path / 'test.jsonl'}")[0] == "test 0"
    assert next(iter(text_documents(f"hf:{tmp_path}"))).text == "train 0"
    for bad in (f"hf:{tmp_path}::none", f"hf:{tmp_path / 'missing'}"):
        with pytest.raises(DataError, match="cannot be read as a Hugging Face data set"):
            texts(bad)
    with pytest.raises(DataError, match=r"no field 'txt' \(fields: body, text\).*'text'"):
        texts(f"hf:{tmp_path}", text_field="txt")


def test_a_data_set_that_the_hub_does_not_have(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def unknown(*_args, **_options):
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'nobody/nothing' doesn't exist.")

    monkeypatch.setattr(datasets, "load_dataset", unknown)
    with pytest.raises(DataError, match=r"nobody/nothing.*check the name"):
        texts("hf:nobody/nothing")


def test_datasets_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'polycode-plugins\[transformer-lens\]'"):
        texts("hf:openwebtext")


def test_a_hub_name_is_split_into_name_configuration_and_split(monkeypatch):
    seen = []

    def load(path, config, *, data_files, split, streaming):
        seen.append((path, config, data_files, split, streaming))
        return [{"text": "x"}]

    stub = types.SimpleNamespace(load_dataset=load, exceptions=types.SimpleNamespace())
    stub.exceptions.DatasetsError = RuntimeError
    monkeypatch.setitem(sys.modules, "datasets", stub)
    for name in ("hf:openwebtext", "hf:org/name:config:test", "hf:name::validation"):
        assert texts(name) == ["x"]
    assert seen == [
        ("openwebtext", None, None, "train", True),
        ("org/name", "config", None, "test", True),
        ("name", None, None, "validation", True),
    ]


def test_a_script_of_a_data_set_is_not_run(monkeypatch):
    said = {}

    def load(path, config, *, data_files, split, streaming, trust_remote_code=None):
        said["trust"] = trust_remote_code
        raise ValueError("org/name contains custom code. Pass the argument trust_remote_code=True.")

    stub = types.SimpleNamespace(load_dataset=load, exceptions=types.SimpleNamespace())
    stub.exceptions.DatasetsError = RuntimeError
    monkeypatch.setitem(sys.modules, "datasets", stub)
    with pytest.raises(DataError, match="a script of its own, which is not run; read that script"):
        texts("hf:org/name")
    assert said == {"trust": False}


def test_a_folder_with_a_script_is_refused_by_the_installed_library(tmp_path):
    pytest.importorskip("datasets")
    ran = tmp_path / "ran"
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "own.py").write_text(f"open({str(ran)!r}, 'w')\n")
    with pytest.raises(DataError, match="hf:"):
        texts(f"hf:{tmp_path / 'own'}")
    assert not ran.exists()


def test_the_embedded_text_is_distinct_prose_and_its_splits_do_not_overlap():
    whole = list(text_documents(None))
    train, validation = texts("embedded:train"), texts("embedded:validation")
    assert len(whole) > 5000
    assert sum(len(document.text) for document in whole) > 1_000_000
    assert len({document.text for document in whole}) == len(whole)
    assert not set(train) & set(validation)
    assert {document.text for document in whole} == {*train, *validation}
    assert 0.03 < len(validation) / len(whole) < 0.2
    assert [d.text for d in text_documents("embedded")] == [d.text for d in whole]
    modules = [{o.split(":")[0] for o, _ in corpus.docstrings(s)} for s in ("train", "validation")]
    assert not modules[0] & modules[1]


def test_docstrings_are_those_that_python_sees(tmp_path, monkeypatch):
    source = '''"""Module."""
if True:
    class A:
        """Class."""
        x = "not a docstring"
        def method(self):
            """Method,

            indented."""
    async def f(): """Async."""
def none(): pass
def again():
    """Class."""
'''
    (tmp_path / "ast.py").write_text(source)
    (tmp_path / "old.py").write_text("print 'Python 2'")
    for skipped in ("test", "site-packages"):
        (tmp_path / skipped).mkdir()
        (tmp_path / skipped / "m.py").write_text('"""Skipped."""')
    monkeypatch.setattr(corpus.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    assert list(corpus.docstrings()) == [
        ("ast.py:1", "Module."),
        ("ast.py:3", "Class."),
        ("ast.py:6", "Method,\n\nindented."),
        ("ast.py:10", "Async."),
    ]
    (tmp_path / "ast.py").unlink()
    with pytest.raises(DataError, match="no standard-library sources"):
        texts("embedded")


def test_the_digest_is_that_of_the_texts_in_order(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "ab"}\n{"text": "c"}\n')

    def digest(source):
        documents = text_documents(source)
        with pytest.raises(DataError, match="not read yet"):
            documents.digest()
        list(documents)
        first = documents.digest()
        list(documents)
        assert documents.digest() == first
        return first

    assert digest(["ab", "c"]) == digest(path) == digest(["ab", "", "c"])
    others = [digest(given) for given in (["c", "ab"], ["a", "bc"], ["abc"], ["ab"])]
    assert len({digest(path), *others}) == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no text"),
        (b" \n\n", "holds no text"),
        (b"fine\nbad \xff byte", "bad.txt is not UTF-8 at byte 9"),
        (b"cut off \xc3", "bad.txt is not UTF-8 at byte 8"),
    ],
)
def test_a_bad_file_is_named(tmp_path, content, message):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        texts(path)


def test_the_offset_of_a_bad_byte_counts_from_the_start_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "LONGEST", 4)
    path = tmp_path / "bad.txt"
    for good in ("", "a"):  # with "a", a block of 4 bytes ends within the bad character
        path.write_bytes(f"{good}éé".encode()[:-1] + b"\nx")
        with pytest.raises(DataError, match=f"byte {len(good) + 2};"):
            texts(path)
    path.write_bytes("abcé\n".encode() + b"ok\xfe")
    with pytest.raises(DataError, match="byte 8;"):
        texts(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "x"}\n{"text": \n', r":2 cannot be read as JSON .* one JSON object a line"),
        (b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", r":1 .*nested too deep"),
        (b'{"x":' * 100_000 + b"1" + b"}" * 100_000, r":1 .*nested too deep"),
        (b'{"text": "a", "n": ' + b"9" * 10_000 + b"}", r":1 .*a number .*thousands of digits"),
        (b'{"text": "a", "n": [-' + b"9" * 10_000 + b"]}", r":1 .*a number .*thousands of digits"),
        (b'{"text": "x"}\n[1]\n', r":2 is a JSON list, not an object"),
        (b'{"txt": "x", "id": 1}\n', r":1 has no field 'text' \(fields: id, txt\).*'txt'\?"),
        (b'{"text": 3}\n', r"field 'text' of .*:1 is int, not a string"),
        (b'{"text": "x"}\n{"text": "\xff"}\n', "not UTF-8 at line 2, byte 10 of it"),
        (b"\n\n", "holds no text"),
    ],
)
def test_bad_json_lines_are_named(tmp_path, content, message):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        texts(path)


def test_sources_that_are_not_there(tmp_path):
    (tmp_path / "image.png").write_bytes(b"x")
    cases = {
        str(tmp_path): r"no text files .*found: \.png",
        "no/such/file.txt": "neither a file nor a folder",
        "a whole sentence instead of a path, " * 200: r"neither .*in a list",
    }
    for source, message in cases.items():
        with pytest.raises(DataError, match=message):
            texts(source)
    for source, message in (([], "no text"), (["a", 3], "text 1 .* int"), (7, "from a int")):
        with pytest.raises(DataError, match=message):
            texts(source)
    with pytest.raises(DataError, match="surrogate"):
        texts(["fine", "half \ud800"])


# -- conversations ---------------------------------------------------------------------------------

TALK = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello!", "name": "x"}]


def test_json_lines_of_conversations(tmp_path):
    file = tmp_path / "talk.jsonl"
    rows = [{"messages": TALK}, {"text": "plain"}, {"text": "both", "messages": TALK}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second, third = text_documents(file)
    assert first.messages == tuple(TALK)  # all keys: a template may use them
    assert json.loads(first.text) == TALK
    assert (second.messages, third.messages, third.text) == (None, None, "both")
    assert next(iter(text_documents(file, text_field="messages"))).messages == tuple(TALK)


def test_conversations_in_a_list_and_their_digest():
    talks = text_documents([TALK, "words"])
    first, second = talks
    assert (first.messages, second.messages) == (tuple(TALK), None)
    other = text_documents([[TALK[0]], "words"])
    list(other)
    assert talks.digest() != other.digest()


@pytest.mark.parametrize(
    ("talk", "message"),
    [
        ([{"role": "user"}], "message 0 of text 0 is no object with a role and a content"),
        ([TALK[0], "then"], "message 1 of text 0 is no object"),
        ([{"role": "user", "content": None}], "message 0 of text 0"),
        ([["not", "messages"]], "text 0 of the list is list, not a string"),
    ],
)
def test_conversations_that_are_none(talk, message):
    with pytest.raises(DataError, match=message):
        list(text_documents([talk]))
