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


def varied(text="a, b, c, d, e, f", count=600, **options):
    recipe = Captions(kind="tags", **options)
    return [caption(recipe, text, "", seed=1, position=position) for position in range(count)]


def test_shuffled_pieces_are_all_there():
    """Every order of the pieces comes about equally often, and each caption has every piece once, a comma and a space between."""
    found = Counter(varied("a,b , c", shuffle=True))
    assert set(found) == {"a, b, c", "a, c, b", "b, a, c", "b, c, a", "c, a, b", "c, b, a"}
    assert all(70 < count < 130 for count in found.values())


def test_kept_pieces_stay_in_front():
    """keep_tokens leaves the first pieces where they are, the others move; a shorter caption stays as it is."""
    found = set(varied("a, b, c, d", shuffle=True, keep_tokens=2))
    assert found == {"a, b, c, d", "a, b, d, c"}
    assert set(varied("a, b", shuffle=True, keep_tokens=5)) == {"a, b"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a, b ||| c, d", {"a, b, c, d", "a, b, d, c"}), ("a ||| c, d ||| e, f", {"a, c, d, e, f", "a, d, c, e, f"}),
     ("c, d", {"c, d", "d, c"}), ("||| c, d", {"c, d", "d, c"})],
)  # fmt: skip
def test_a_separator_says_what_is_kept(text, expected):
    """What stands before keep_tokens_separator, and after a second one, stays; a caption without it has keep_tokens, or none."""
    assert set(varied(text, shuffle=True, keep_tokens_separator="|||")) == expected


def test_pieces_are_left_out_at_their_rate():
    """tag_dropout leaves each piece out for itself, but none that is kept; a caption may end up empty."""
    found = varied(tag_dropout=0.3, keep_tokens=1)
    counts = Counter(piece for text in found for piece in text.split(", "))
    assert counts.pop("a") == 600
    assert all(370 < count < 470 for count in counts.values())
    assert all(text.split(", ") == sorted(text.split(", ")) for text in found)
    assert "" in varied("a", tag_dropout=0.5)


def test_separators_are_free():
    """Another separator cuts elsewhere, and pieces are joined by commas; the secondary one is no cut and then becomes the first."""
    assert set(varied("a, b; c", shuffle=True, separator=";")) == {"a, b, c", "c, a, b"}
    found = set(varied("a;;;b, c", shuffle=True, secondary_separator=";;;"))
    assert found == {"a,b, c", "c, a,b"}


def test_prefix_and_suffix_are_part_of_the_text():
    """They stand a space away, are cut and expanded with it, and belong to what is kept."""
    assert set(varied("a, b", prefix="art of", suffix="end")) == {"art of a, b end"}
    assert set(varied("a, b, c", prefix="x,", shuffle=True, keep_tokens=1)) == {
        "x, a, b, c",
        "x, a, c, b",
        "x, b, a, c",
        "x, b, c, a",
        "x, c, a, b",
        "x, c, b, a",
    }
    assert set(varied("a", prefix="{u|v}", wildcards=True)) == {"u a", "v a"}


def test_whole_epochs_are_trained_without_text():
    """Under dropout_every_epochs: 3 the third, sixth ... epoch has no captions, whatever else is asked for."""
    recipe = Captions(kind="tags", dropout_every_epochs=3, prefix="x")
    assert [caption(recipe, "a", "", seed=1, position=0, epoch=epoch) for epoch in range(7)] == [
        "x a",
        "x a",
        "",
        "x a",
        "x a",
        "",
        "x a",
    ]


def test_variations_are_of_the_position():
    """Shuffle and dropout are drawn from (seed, position) alone, each by numbers of its own."""
    options = {"shuffle": True, "tag_dropout": 0.3}
    assert varied(**options) == varied(**options)
    recipe = Captions(kind="tags", **options)
    assert varied(**options) != [caption(recipe, "a, b, c, d, e, f", "", seed=2, position=position) for position in range(600)]
    orders = [text.replace(", ", "") for text in varied(shuffle=True)]
    assert [
        "".join(piece for piece in order if piece in text) for order, text in zip(orders, varied(**options), strict=True)
    ] == [text.replace(", ", "") for text in varied(**options)]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"keep_tokens": 1}, "keep_tokens says what shuffle and tag_dropout leave alone"),
     ({"separator": ";"}, "separator is read by shuffle"), ({"tag_dropout": 1.0}, "less than 1"), ({"shuffle": False}, "True")],
)  # fmt: skip
def test_what_captions_do_not_have_is_refused(options, message):
    """An option that would be without effect is an error."""
    with pytest.raises(ValueError, match=message):
        Captions(kind="tags", **options)
    assert Captions(kind="tags", shuffle=True, separator=",") == Captions(kind="tags", shuffle=True)
