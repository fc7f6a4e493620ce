"""Which text a sample is trained with."""

from collections import Counter

import pytest

from astolfo.data.captions import caption, expanded
from astolfo.ledger.schema import Captions


def texts(kind, tags="1star, solo", sentence="a star", **options):
    recipe = Captions(kind=kind, **options)
    return [caption(recipe, tags, sentence, seed=1, position=position) for position in range(400)]


def test_tags_uses_the_tags():
    """`tags` never shows the sentence."""
    assert set(texts("tags")) == {"1star, solo"}


def test_pick_takes_either():
    """`pick` shows each of the two about half of the time."""
    found = texts("pick")
    assert set(found) == {"1star, solo", "a star"}
    assert 150 < found.count("a star") < 250


def test_concat_joins_both():
    """`concat` is the tags followed by the sentence."""
    assert set(texts("concat")) == {"1star, solo, a star"}


@pytest.mark.parametrize("kind", ["tags", "pick", "concat"])
def test_a_row_may_lack_one(kind):
    """A row with tags only, or a sentence only, is trained with what it has, never with an empty caption."""
    assert set(texts(kind, sentence="")) == {"1star, solo"}
    assert set(texts(kind, tags="")) == {"a star"}


def test_dropout_drops_its_share():
    """A dropout of 0.1 empties about a tenth of the captions."""
    assert 20 < texts("tags", dropout=0.1).count("") < 60


def wild(text, count=400):
    """The texts that `count` positions make of `text`, and how often."""
    return Counter(expanded(text, seed=1, position=position) for position in range(count))


def test_a_wildcard_is_one_of_its_alternatives():
    """`{a|b|c}` is a, b or c, each about a third of the time; each group draws for itself."""
    assert set(wild("a {red|blue|} star")) == {"a red star", "a blue star", "a  star"}
    assert all(100 < count < 170 for count in wild("{a|b|c}").values())
    assert set(wild("{a|b} {a|b}")) == {"a a", "a b", "b a", "b b"}


def test_wildcards_may_be_nested():
    """A group inside a group is drawn first; `}}` closes two."""
    assert set(wild("{a|{b|c} d} e")) == {"a e", "b d e", "c d e"}
    found = wild("{a|{b|{c|d}}}")
    assert set(found) == set("abcd")
    assert found["a"] > 150
    assert set(wild("{a|{b|c}}!")) == {"a!", "b!", "c!"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{a|b}}", {"{a|b}"}),  # doubled braces are literal
        ("{a|{{b}} c}", {"a", "{b} c"}),
        ("{{{a|b}}}", {"{a", "{b}"}),
        ("{a}", {"a"}),
        ("{}", {"{}"}),
        ("a | b, :}", {"a | b, :}"}),
        ("{a|b", {"{a|b"}),
        ("{a|b}}", {"{a|b}"}),
        ("{2$$a|b}", {"2$$a", "b"}),  # more than one at once only in prompts of sampling scripts
        ("no braces, (a:1.2)", {"no braces, (a:1.2)"}),
        ("", {""}),
    ],
)
def test_braces_as_sd_scripts_reads_them(text, expected):
    """What sd-scripts' captions make of escapes, of single, empty and unclosed groups."""
    assert set(wild(text)) == expected


@pytest.mark.parametrize("kind", ["tags", "pick", "concat"])
def test_wildcards_change_nothing_without_braces(kind):
    """Captions of one line without braces are the same with and without wildcards, at every position."""
    assert texts(kind, wildcards=True) == texts(kind)


def test_wildcards_are_keyed_by_position():
    """The same seed and position give the same text, whoever asks, and another seed another sequence."""
    assert texts("tags", tags="{a|b|c|d}", wildcards=True) == texts("tags", tags="{a|b|c|d}", wildcards=True)
    one, two = ([expanded("{a|b}", seed=seed, position=position) for position in range(64)] for seed in (1, 2))
    assert one != two


def test_wildcards_take_one_line():
    """With wildcards one line of several is taken, never a blank one; the tags go with each."""
    found = Counter(texts("concat", sentence="a star\n\na red {disc|ring}\n", wildcards=True))
    assert set(found) == {"1star, solo, a star", "1star, solo, a red disc", "1star, solo, a red ring"}
    assert 150 < found["1star, solo, a star"] < 250


@pytest.mark.parametrize("kind", ["tags", "pick", "concat"])
def test_a_row_may_lack_one_under_wildcards(kind):
    """Tags only or a sentence only is trained with what it has under wildcards too; later sd-scripts empties the former."""
    assert set(texts(kind, sentence="", wildcards=True)) == {"1star, solo"}
    assert set(texts(kind, tags="", wildcards=True)) == {"a star"}
    assert set(texts(kind, sentence="\n", tags="", wildcards=True)) == {""}


@pytest.mark.parametrize(("kind", "found"), [("concat", {"a star"}), ("pick", {"a star"}), ("tags", {"a star"})])
def test_a_blank_text_is_none_under_wildcards(kind, found):
    """Where a line is taken of each text, one of white space gives none, and is no choice."""
    recipe = Captions(kind=kind, wildcards=True)
    for tags, sentence in (("a star", "  "), (" ", "a star"), ("a star", " \n ")):
        assert {caption(recipe, tags, sentence, seed=1, position=position) for position in range(8)} == found


def test_dropout_comes_first():
    """A dropped caption stays empty whatever its wildcards."""
    plain, both = texts("tags", dropout=0.1), texts("tags", tags="{1star|solo}", dropout=0.1, wildcards=True)
    assert [not text for text in both] == [not text for text in plain]
