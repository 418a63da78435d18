"""The small encyclopedia in data/mini keeps what its README promises."""

import json
import re
from collections import Counter
from pathlib import Path

MINI = Path(__file__).resolve().parent.parent / "data" / "mini"
YEAR = re.compile(r"(?<!\d)\d{4}(?!\d)")


def read(name):
    with open(MINI / f"{name}.jsonl", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


DOCUMENTS, QUESTIONS, FACTS = read("documents"), read("questions"), read("facts")
TEXT = {d["id"]: d["text"] for d in DOCUMENTS}


def sentences(text):
    return re.split(r"(?<=[.!?])\s+(?=[A-Z])", text)


def test_documents():
    assert len(DOCUMENTS) >= 130
    assert len(TEXT) == len({d["title"].lower() for d in DOCUMENTS}) == len(DOCUMENTS)
    for name, text in TEXT.items():
        assert text.isascii(), name
        assert 45 <= len(text.split()) <= 110, name
        assert 3 <= len(sentences(text)) <= 6, name
    repeated = Counter(s.lower() for t in TEXT.values() for s in sentences(t))
    assert max(repeated.values()) == 1


def test_facts_stand_in_two_documents():
    assert len(FACTS) >= 160 and len({f["fact"] for f in FACTS}) == len(FACTS)
    for fact in FACTS:
        assert len(set(fact["documents"])) == len(fact["documents"]) >= 2, fact
        for name in fact["documents"]:
            assert fact["answer"].lower() in TEXT[name].lower(), (fact, name)
    uses = Counter(name for fact in FACTS for name in fact["documents"])
    assert all(uses[name] >= 2 for name in TEXT)


def test_every_year_belongs_to_a_fact():
    covered = {
        (name, year)
        for fact in FACTS
        for year in YEAR.findall(fact["answer"])
        for name in fact["documents"]
    }
    assert {(name, year) for name, text in TEXT.items() for year in YEAR.findall(text)} <= covered


def test_questions_can_be_answered_from_two_documents():
    assert len(QUESTIONS) >= 110 and len({q["question"] for q in QUESTIONS}) == len(QUESTIONS)
    for question in QUESTIONS:
        assert len(set(question["documents"])) >= 2, question
        for name in question["documents"]:
            assert any(a.lower() in TEXT[name].lower() for a in question["answers"]), (
                question,
                name,
            )
