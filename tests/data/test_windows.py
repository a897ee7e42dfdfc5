"""Windows hold every token once, in order, whatever the batch size and the number of shards."""

from __future__ import annotations

import json
from functools import cache

import pytest
import torch
from hostile_values import LETTERS, answer, fewer
from hypothesis import given, settings
from hypothesis import strategies as st

import polycode_plugins as pc
from polycode_plugins.data.text import text_documents
from polycode_plugins.data.windows import token_windows, tokenizer_frame
from polycode_plugins.errors import DataError

BOS, EOS, PAD = 1, 2, 3


class Letters:
    """A tokenizer whose tokens are characters: `$` is its end-of-text token."""

    bos_token_id: int | None = BOS
    eos_token_id: int | None = EOS
    pad_token_id: int | None = PAD
    all_special_ids = (BOS, EOS, PAD)

    def __call__(self, text, *, add_special_tokens, verbose):
        assert not add_special_tokens
        return {"input_ids": [EOS if c == "$" else ord(c) for c in text]}


def letters(**changed):
    made = Letters()
    for name, value in changed.items():
        setattr(made, name, value)
    return made


def windows(texts, tokenizer=None, **options):
    return list(token_windows(text_documents(texts), tokenizer or Letters(), **options))


def spelled(ids):
    return "".join(map(chr, ids))


def test_windows_of_two_documents_by_hand():
    (batch,) = windows(["abcdef", "$x"], context=5)
    a, b, c, d, e, f, x = map(ord, "abcdefx")
    assert batch.tokens.tolist() == [
        [BOS, a, b, c, d],
        [BOS, e, f, PAD, PAD],
        [BOS, EOS, x, PAD, PAD],
    ]
    assert batch.mask.int().tolist() == [[0, 1, 1, 1, 1], [0, 1, 1, 0, 0], [0, 0, 1, 0, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 0, 0]]
    assert batch.documents.tolist() == [0, 0, 1]
    assert batch.rows.tolist() == [0, 1, 2]
    assert batch.tokens.dtype == batch.attention_mask.dtype == torch.int64
    assert batch.mask.dtype == torch.bool


def test_special_tokens_are_measured_only_on_request():
    (batch,) = windows(["abcdef", "$x"], context=5, include_special=True)
    assert batch.mask.equal(batch.attention_mask.bool())


def test_without_a_prepended_token_windows_start_with_the_document():
    (batch,) = windows(["abcdef"], context=4, prepend_bos=False)
    assert batch.tokens.tolist() == [list(map(ord, "abcd")), [ord("e"), ord("f"), PAD, PAD]]
    assert batch.mask.int().tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


@settings(deadline=None, max_examples=60)
@given(
    texts=st.lists(st.text("abcdefgh$", min_size=1, max_size=30), min_size=1, max_size=8),
    context=st.integers(2, 9),
    batch_size=st.integers(1, 7),
    world=st.integers(1, 4),
    prepend=st.booleans(),
)
def test_nothing_is_lost_or_doubled(texts, context, batch_size, world, prepend):
    texts = ["abcdefghij", *texts]  # long enough for any window here
    rows = {}
    for rank in range(world):
        for batch in windows(
            texts,
            context=context,
            batch_size=batch_size,
            prepend_bos=prepend,
            shard=(rank, world),
        ):
            assert 1 <= len(batch.rows) <= batch_size
            for i, row in enumerate(batch.rows.tolist()):
                assert row not in rows
                assert row % world == rank
                present = batch.attention_mask[i].bool()
                ids = batch.tokens[i][present].tolist()
                assert ids[:prepend] == [BOS] * prepend
                assert batch.mask[i][present].tolist() == [t not in (BOS, EOS) for t in ids]
                assert not batch.mask[i][~present].any()
                rows[row] = batch.documents[i].item(), spelled(ids[prepend:])
    assert sorted(rows) == list(range(len(rows)))
    joined = [
        "".join(part for _, (document, part) in sorted(rows.items()) if document == number)
        for number in range(len(texts))
    ]
    # Of equal texts all windows are of the first one's document.
    first = [texts.index(text) == number for number, text in enumerate(texts)]
    whole = [text.replace("$", chr(EOS)) * texts.count(text) for text in texts]
    assert joined == [text if new else "" for text, new in zip(whole, first, strict=True)]


def test_a_limit_counts_windows_over_all_shards():
    texts = ["abcdefgh", "ijkl"]
    assert [b.rows.tolist() for b in windows(texts, context=3, limit=3)] == [[0, 1, 2]]
    parts = [windows(texts, context=3, limit=3, shard=(rank, 2)) for rank in (0, 1)]
    assert [[b.rows.tolist() for b in part] for part in parts] == [[[0, 2]], [[1]]]
    assert windows(texts, context=3, limit=1, shard=(1, 2)) == []
    # A limit below one window's tokens is the caller's wish, not a lack of text.
    assert windows(["a", "bcdefghij"], context=9, limit=1)[0].tokens[0, 1] == ord("a")


def test_reading_stops_at_the_limit():
    def endless():
        while True:
            yield "abc"

    batch = next(token_windows(text_documents(endless()), Letters(), context=3, batch_size=2))
    assert batch.rows.tolist() == [0, 1]
    assert len(windows(endless(), context=3, limit=4, batch_size=3)) == 2


def test_padding_falls_back_to_the_end_token_and_the_start_too():
    plain = letters(pad_token_id=None, bos_token_id=None)
    (batch,) = windows(["abc", "d"], plain, context=4)
    assert batch.tokens[1].tolist() == [EOS, ord("d"), EOS, EOS]
    assert batch.mask[1].tolist() == [False, True, False, False]
    unlisted = letters(all_special_ids=())  # the prepended token is left out all the same
    (batch,) = windows(["abc"], unlisted, context=4)
    assert batch.mask.tolist() == [[False, True, True, True]]
    none = letters(pad_token_id=None, bos_token_id=None, eos_token_id=None, all_special_ids=())
    (batch,) = windows(["abcd", "d"], none, context=4, prepend_bos=False)
    assert batch.tokens[1].tolist() == [ord("d"), 0, 0, 0]
    with pytest.raises(DataError, match="prepend_bos=False"):
        windows(["abc"], none)


def test_a_tokenizer_of_the_tokenizers_library():
    tokenizers = pytest.importorskip("tokenizers")
    model = tokenizers.models.WordLevel({"a": 0, "b": 1}, unk_token="a")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    (batch,) = windows(["b a b", "b"], tokenizer, context=3, prepend_bos=False)
    assert batch.tokens.tolist() == [[1, 0, 1], [1, 0, 0]]
    assert batch.mask.int().tolist() == [[1, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": 1}, "--context 2 or more"),
        ({"context": 0, "prepend_bos": False}, "--context 1 or more"),
        ({"batch_size": 0}, "batch size is 0"),
        ({"limit": 0}, "limit is 0"),
        ({"shard": (2, 2)}, "shard 2 of 2"),
        ({"shard": (-1, 2)}, "shard -1 of 2"),
    ],
)
def test_arguments_out_of_range(options, message):
    with pytest.raises(DataError, match=message):
        token_windows(text_documents(["abc"]), Letters(), **options)


@pytest.mark.parametrize("batch_size", [1, 16])
def test_an_input_shorter_than_one_window(batch_size):
    stream = token_windows(
        text_documents(["ab", "cd"]), Letters(), context=6, batch_size=batch_size
    )
    with pytest.raises(DataError, match=r"4 tokens, fewer than one window of 5 .*--context"):
        next(stream)
    assert len(windows(["ab", "cde"], context=6)) == 1  # 5 tokens in all do fill one


def test_what_is_not_a_tokenizer():
    with pytest.raises(DataError, match="not a tokenizer"):
        windows(["abc"], object(), prepend_bos=False)


@fewer
@given(st.lists(st.lists(LETTERS, max_size=30).map("".join), min_size=1, max_size=5))
def test_texts(tmp_path_factory, texts):
    folder = tmp_path_factory.getbasetemp()
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    (folder / "texts.txt").write_bytes("\n".join(texts).encode("utf-8", "surrogatepass"))
    for source in (texts, folder / "texts.jsonl", folder / "texts.txt"):
        adapter = _embedded()
        answer(lambda s=source, a=adapter: list(a.batches(s, pc.DataOptions(context=4, limit=4))))


@cache
def _embedded() -> pc.Adapter:
    return pc.load()


# -- frames and conversations ----------------------------------------------------------------------


CLS, SEP = 4, 5


class Framing(Letters):
    """Puts [CLS] before a text and [SEP] after it, when it is asked to."""

    bos_token_id = eos_token_id = None
    all_special_ids = (CLS, SEP, PAD)

    def __call__(self, text, *, add_special_tokens, verbose):
        ids = [ord(c) for c in text]
        return {"input_ids": [CLS, *ids, SEP] if add_special_tokens else ids}


class Chatting(Letters):
    """Writes a conversation as `$` and the role's first letter before each message."""

    chat_template = "of its own"

    def apply_chat_template(self, messages, *, tokenize):
        assert not tokenize
        if messages[0]["role"] == "tool":
            raise ValueError("Conversations begin with a user.\nsecond line")
        return "".join(f"${m['role'][0]}{m['content']}" for m in messages)


TALK = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "cde"}]


def test_a_frame_stands_around_each_window_and_is_not_measured():
    frame = tokenizer_frame(Framing())
    assert frame == ([CLS], [SEP])
    (batch,) = windows(["abcde"], Framing(), context=5, frame=frame)
    a, b, c, d, e = map(ord, "abcde")
    assert batch.tokens.tolist() == [[CLS, a, b, c, SEP], [CLS, d, e, SEP, PAD]]
    assert batch.mask.int().tolist() == [[0, 1, 1, 1, 0], [0, 1, 1, 0, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    (special,) = windows(["abcde"], Framing(), context=5, frame=frame, include_special=True)
    assert special.mask.equal(special.attention_mask.bool())


def test_a_frame_is_left_out_even_where_no_tokenizer_calls_it_special():
    class Plain(Framing):
        all_special_ids = ()

    (batch,) = windows(["abcde"], Plain(), context=5, frame=([7], [8, 9]))
    assert batch.tokens.tolist()[0] == [7, ord("a"), ord("b"), 8, 9]
    assert batch.mask.int().tolist() == [[0, 1, 1, 0, 0], [0, 1, 1, 0, 0], [0, 1, 0, 0, 0]]


def test_a_tokenizer_that_adds_nothing_has_an_empty_frame():
    class Bare(Letters):
        def __call__(self, text, *, add_special_tokens, verbose):
            return {"input_ids": [ord(c) for c in text]}

    assert tokenizer_frame(Bare()) == ([], [])
    (batch,) = windows(["ab"], Bare(), context=2, frame=([], []))
    assert batch.mask.all()


def test_a_window_without_room_beside_the_frame():
    message = r"3 positions has no room .* 3 special tokens; give --context 4 or more"
    with pytest.raises(DataError, match=message):
        windows(["ab"], Framing(), context=3, frame=([CLS], [SEP, SEP]))
    with pytest.raises(DataError, match="beside the tokenizer's 2 special tokens; give more text"):
        windows(["ab"], Framing(), context=9, frame=([CLS], [SEP]))


def test_a_conversation_is_written_by_the_template_and_cut_like_a_text():
    (batch,) = windows([TALK, "xy"], Chatting(), context=5)
    u, a, b, c, d, e, x, y = map(ord, "uabcdexy")
    assert batch.tokens.tolist() == [
        [BOS, EOS, u, a, b],
        [BOS, EOS, a, c, d],
        [BOS, e, PAD, PAD, PAD],
        [BOS, x, y, PAD, PAD],
    ]
    assert batch.mask.int().tolist()[0] == [0, 0, 1, 1, 1]  # the template's own token stays out
    assert batch.documents.tolist() == [0, 0, 0, 1]


def test_a_template_that_begins_the_text_itself_begins_it_once():
    tokenizer = Chatting()
    tokenizer.bos_token_id = EOS
    (batch,) = windows([TALK], tokenizer, context=9)
    assert batch.tokens.tolist()[0] == [EOS, *map(ord, "uab"), EOS, *map(ord, "acde")]


def test_conversations_that_cannot_be_written():
    with pytest.raises(DataError, match=r"text 0 is a conversation.* has no chat template"):
        windows([TALK], context=5)
    said = r"does not take the conversation at text 0 \(Conversations begin with a user\)"
    with pytest.raises(DataError, match=said):
        windows([[{"role": "tool", "content": "x"}]], Chatting(), context=5)
