"""Which sites names, globs, filters and "all" mean, and what is said of those that mean none."""

from __future__ import annotations

import pytest

from polycode_plugins.activations import Site
from polycode_plugins.adapters.patterns import by_default, check_patterns, choose, match
from polycode_plugins.errors import SiteError

NAMES = ["embed", "blocks.0.out", "blocks.0.mlp.post", "blocks.1.out", "blocks.1.mlp.post"]
SITES = [Site(name, depth) for depth, name in enumerate(NAMES)]


def chosen(patterns, default=("*.out",)):
    return [site.name for site in choose(patterns, SITES, list(default))]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("blocks.0.out", ["blocks.0.out"]),
        ("blocks.*.out", ["blocks.0.out", "blocks.1.out"]),
        ("blocks.*", []),  # '*' stays within one part
        ("blocks.**", NAMES[1:]),
        ("blocks.?.mlp.*", ["blocks.0.mlp.post", "blocks.1.mlp.post"]),
        ("blocks.[!0].out", ["blocks.1.out"]),
        ("blocks+0.out", []),  # no other sign has a meaning
    ],
)
def test_what_a_pattern_means(pattern, names):
    assert [site.name for site in match(pattern, SITES)] == names


def test_choices_come_in_order_of_depth_each_once():
    assert chosen(["blocks.1.out", "embed", "*mbed"]) == ["embed", "blocks.1.out"]
    assert chosen("all") == NAMES
    assert chosen(["all", "!**.post"]) == ["embed", "blocks.0.out", "blocks.1.out"]
    assert chosen("!blocks.0.out", ["blocks.*.out"]) == ["blocks.1.out"]
    assert chosen(lambda name: name.endswith("post")) == ["blocks.0.mlp.post", "blocks.1.mlp.post"]


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        ("blocks.*", r"'\*' stays within one dotted part, '\*\*' crosses them: 'blocks.0.out'"),
        ("blocks.0.owt", "did you mean 'blocks.0.out'"),
        (["embed", "!blocks.0.out"], "'!blocks.0.out' leaves out none of the sites"),
        (lambda name: False, "accepts none of the 5 names, such as 'embed'"),
        ([0], "names, globs, 'all' or one function of a name, and 0 is none"),
        (3, "and 3 is none"),
    ],
)
def test_what_means_no_site_is_one_sentence(patterns, said):
    with pytest.raises(SiteError, match=said):
        chosen(patterns)


def test_who_named_no_site_left_the_choice_to_us():
    assert by_default(None)
    assert by_default("all")
    assert by_default(["!embed"])
    assert not by_default(["all", "embed"])
    assert not by_default(lambda name: True)
    check_patterns(None)
