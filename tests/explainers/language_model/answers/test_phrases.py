"""The phrase that was meant is taken from an explanation, and nothing else is."""

from __future__ import annotations

import pytest

from polycode_plugins.explainers.language_model.answers import phrases
from polycode_plugins.explainers.language_model.transport.failures import Unreadable


@pytest.mark.parametrize(
    ("answer", "phrase"),
    [
        (" names of colours.\n\nUnit 5", "names of colours"),
        ("Unit 4 responds to names of colours.", "names of colours"),
        ('responds to: "names of colours".', "names of colours"),
    ],
)
def test_the_phrase_is_taken_from_an_explanation(answer, phrase):
    assert phrases.explanation(answer) == phrase


@pytest.mark.parametrize("answer", ["", "...", "\n\n"])
def test_an_empty_explanation_is_none(answer):
    with pytest.raises(Unreadable, match="empty"):
        phrases.explanation(answer)


@pytest.mark.parametrize(
    ("answer", "phrase"),
    [
        ("Step 1. I read.\nStep 2. They share one.\n[EXPLANATION]: the word the", "the word the"),
        ("**Explanation:**\n\nIt responds to words for sounds.", "words for sounds"),
        ("### Explanation\nwords for sounds", "words for sounds"),
        ("Sure! Here is the explanation:\n\nwords for sounds", "words for sounds"),
        ("Explanation: words for sounds\n\nReasoning: they are heard.", "words for sounds"),
        ("**words for sounds**", "words for sounds"),
        ("- words for *sounds*", "words for sounds"),
        ('{"explanation": "words for sounds"}', "words for sounds"),
        ("```\nwords for sounds\n```", "words for sounds"),
        ("<answer>words for sounds</answer>", "words for sounds"),
        (r"So it is \boxed{words for sounds}", "words for sounds"),
        ("Okay, so I compare.\n\nUnit 4 responds to words for sounds.", "words for sounds"),
        ("Unit 4 responds to\n\nwords for sounds", "words for sounds"),
        # What looks like talk, a refusal or a heading and is a phrase:
        ("I and other first-person pronouns", "I and other first-person pronouns"),
        ("I can't and other contractions", "I can't and other contractions"),
        ("sorry, excuse me and other apologies", "sorry, excuse me and other apologies"),
        ("unfortunately and other adverbs", "unfortunately and other adverbs"),
        ("First, second and other ordinals", "First, second and other ordinals"),
        ("analysis of variance", "analysis of variance"),
        ("closing brackets in Python code", "closing brackets in Python code"),
        (
            "the second of two nouns, as in names of firms",
            "the second of two nouns, as in names of firms",
        ),
        ("step 1 of recipes", "step 1 of recipes"),
        ('the word "explanation:" and colons', 'the word "explanation:" and colons'),
        ("indexing such as [key]", "indexing such as [key]"),
        ("snake_case and _private names", "snake_case and _private names"),
    ],
)
def test_the_phrase_that_was_meant(answer, phrase):
    assert phrases.explanation(answer) == phrase


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("I'm sorry, but I can't help with that.", "refused"),
        ("I’m sorry, but I cannot assist with this request.", "refused"),
        ("Sorry, I can't comply.", "refused"),
        ("I apologize, but I am unable to determine it.", "refused"),
        ("I do not have access to the network.", "refused"),
        ("As an AI language model, I have no opinion.", "refused"),
        ("Unfortunately, there is not enough to go on.", "refused"),
        ("Es tut mir leid, dabei kann ich nicht helfen.", "refused"),
        ("抱歉，我无法回答。", "refused"),
        ("Explanation: I'm sorry, but I can't say.", "refused"),
        ("I don't know.", "refused"),
        ("**Explanation:**", "heading"),
        ("Here is the explanation:", "heading"),
        ("Step 1: I read the texts. Step 2: They share", "gives reasons"),
        ("Okay, so the user wants a phrase.", "gives reasons"),
        ("We need to find what they share.", "gives reasons"),
        ("Let's look at the active tokens.", "gives reasons"),
        ("words for weather", "example of the prompt"),
        ("Words for the weather.", "example of the prompt"),
        ("Unit 4 responds to closing brackets in code.", "example of the prompt"),
        ("the last of two names that stand side by side", "example of the prompt"),
        ("The second of two words that stand side by side.", "example of the prompt"),
        ("rain\t9", "repeats the prompt"),
        ("{", "no phrase"),
        ('{"a": "x", "b": "y"}', "no phrase"),
        ("the key is [key removed]", "repeats the key"),
    ],
)
def test_what_is_no_phrase_about_the_unit(answer, reason):
    with pytest.raises(Unreadable, match=reason):
        phrases.explanation(answer)


def test_one_phrase_for_many_units_is_of_none():
    assert phrases.repeated(["punctuation"] * 4 + ["colours", None]) == set()
    assert phrases.repeated(["Punctuation.", "the punctuation"] * 3 + ["colours"]) == {
        "punctuation"
    }
    # In a large layer some units may well be alike.
    assert phrases.repeated(["punctuation"] * 10 + [f"word {i}" for i in range(40)]) == set()
    assert phrases.repeated(["punctuation"] * 20 + [f"word {i}" for i in range(40)])
