"Nothing that reads text takes a time that grows faster than the text."

import time

import nasty
import pytest

from realm_nb.qa.scoring import matches
from realm_nb.text.documents import _field_texts, read_mediawiki, read_text
from realm_nb.text.sentences import sentences
from realm_nb.text.tagger_training import agreement, write_conll
from realm_nb.text.taggers import RuleTagger, Span
from realm_nb.text.wikitext import (
    LINK,
    LINK_END,
    _convert,
    is_disambiguation,
    is_tangled,
    link_sentences,
    split_links,
    tidy,
)

TIMES = 8  # as much text may take …
MOST = 20  # … so many times as long; a quadratic time is 64 times as long
LARGEST = 1_000_000


def seconds(work, text) -> float:
    "Of the processor."
    began = time.process_time()
    work(text)
    return time.process_time() - began


def check_linear(work, motif):
    n, small = 2000, 0.0
    while small < 0.02 and n < LARGEST // TIMES:
        n *= 2
        small = seconds(work, nasty.text(motif, n))
    large = [seconds(work, nasty.text(motif, n * TIMES))]
    while min(large) >= MOST * max(small, 0.01) and len(large) < 4:  # something else ran
        large.append(seconds(work, nasty.text(motif, n * TIMES)))
    assert min(large) < MOST * max(small, 0.01), (n, small, large)


def shapes(*groups):
    return pytest.mark.parametrize(
        "motif", [pytest.param(m, id=name) for group in groups for name, m in group.items()]
    )


@shapes(nasty.TIDY, nasty.PROSE, nasty.WIKITEXT)
def test_tidying_takes_linear_time(motif):
    check_linear(tidy, motif)


@shapes(nasty.PROSE, nasty.TIDY, nasty.NAMES)
def test_cutting_sentences_takes_linear_time(motif):
    check_linear(sentences, motif)


@shapes(nasty.NAMES, nasty.PROSE)
def test_tagging_by_rule_takes_linear_time(motif):
    check_linear(lambda text: RuleTagger().tag([text]), motif)


@shapes(nasty.WIKITEXT)
def test_judging_a_page_takes_linear_time(motif):
    check_linear(lambda text: (is_disambiguation("A", text), is_tangled(text[: 2**21])), motif)


@pytest.mark.parametrize("repeated", [LINK, LINK_END, f"{LINK}Ab{LINK_END} c. ", f"{LINK}a b. "])
def test_links_are_split_in_linear_time(repeated):
    check_linear(lambda text: (split_links(text), list(link_sentences(text))), (repeated, "Ab "))


def test_arguments_of_convert_are_joined_in_linear_time():
    check_linear(lambda text: _convert(text.split("|"), {}), ("1|-|", ""))


@pytest.mark.parametrize("repeated", ["<", "<b", "<b>", "&#1", "&"])
def test_fields_of_a_country_are_read_in_linear_time(repeated):
    check_linear(lambda text: list(_field_texts({"a": {"text": text}}, "a")), (repeated, ""))


def test_text_files_are_read_in_linear_time(tmp_path):
    def work(text):
        (tmp_path / "a.txt").write_text(text)
        list(read_text(tmp_path / "a.txt"))

    for motif in (("a\n", ""), (" \n", "a"), (" ", "a\n"), ("a \n b", "")):
        check_linear(work, motif)


def test_spans_of_a_long_sentence_are_compared_and_written_in_linear_time(tmp_path):
    def work(text):
        spans = [[Span(i, i + 1, "NAME") for i in range(0, len(text), 2)]]
        agreement(spans, spans)
        write_conll(tmp_path / "a.conll", [text], spans)

    check_linear(work, ("A ", ""))


def page(tmp_path, wikitext):
    escaped = wikitext.replace("&", "&amp;").replace("<", "&lt;").replace("\x01", "")
    path = tmp_path / "dump.xml"
    revision = f"<revision><text>{escaped}</text></revision>"
    path.write_text(f"<mediawiki><page><title>A</title>{revision}</page></mediawiki>")
    return path


@shapes(nasty.WIKITEXT)
def test_no_page_is_parsed_for_long(tmp_path, motif):
    n = 1000
    while n < 2**20 and not is_tangled(nasty.text(motif, 2 * n)):
        n *= 2
    for size in (n, 2 * n):
        path = page(tmp_path, nasty.text(motif, size))
        for links in (False, True):
            began = time.process_time()
            list(read_mediawiki(path, links=links))
            assert time.process_time() - began < 15, (size, links)


BOMBS = [
    "((a{1000}){1000}){1000}",
    "(a{1000}){1000}",
    "(((((a{100}){100}){100}){100}){100})",
    "a{99999999999999999999}",
    "(?:a{1,5000}){1,5000}",
    "(" * 3000 + "a" + ")" * 3000,
    "(a?)" * 300 + "a" * 300,
    "(a+)+" * 200 + "b",
    "|".join("a" * i for i in range(60)),
    "(?R)?a",
    "(a(?1)?b)" * 50,
    "(?:abcdefghij){e}",
    "a" * 1_000_000,
    "[" * 1_000_000,
    "(a|aa)+$",
]


@pytest.mark.parametrize("pattern", BOMBS, ids=lambda p: p[:24])
def test_no_expression_takes_long_or_much_memory(pattern):
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    matches(pattern, "a" * 3000 + "!", anywhere=True)
    assert time.process_time() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024
