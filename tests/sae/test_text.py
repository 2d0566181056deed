from __future__ import annotations

import json
import re

import pytest
from hub_fixtures import run_client

from steer_eval.digest import sha256_text
from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.sae import text
from steer_eval.sae.text import FileText, HubText, OfflineText, documents, plain_text, source_digest


@pytest.mark.parametrize(
    ("markup", "prose"),
    [
        ("'''Anger''' is an [[emotion]].", "Anger is an emotion."),
        ("It is ''strong''{{citation needed|date=May 2010}}.", "It is strong."),
        ("See [[Rage (emotion)|rage]] here.", "See rage here."),
        ("One.<ref name=a>A book, p. 3.</ref> Two.", "One. Two."),
        ("One.<ref>A {{cite|title=x}} [[File:in.png|a note]]</ref> Two.", "One. Two."),
        ("[[File:face.jpg|thumb|An angry [[face]].]]Text.", "Text."),
        ("Text.\n[[Category:Emotions]]", "Text."),
        ('Before.\n{| class="wikitable"\n|-\n| a || b\n|}\nAfter.', "Before.\nAfter."),
        ("<math>x^2</math> is a square.", "is a square."),
        ("== Causes ==\n\n\nMany.", "Causes\nMany."),
        ("A &amp; B", "A & B"),
        # Bold that is not closed ends with its line, and leaves what is around it as it was.
        ("Before.\n{| class=x\n|-\n|align=right| '''{{bar|87}}\n|-\n| b\n|}\nAfter.", "Before.\nAfter."),
        ("{{Infobox\n| won = {|\n! '''1 !! 2\n|-\n| bgcolor=afeeee | [[1987|'''W]]\n|}\n}}Text.", "Text."),
        ("[[File:a.svg|thumb|A ''picture [[of]] it]]Text.", "Text."),
        ("One.<ref>A ''book, p. 3</ref> Two.", "One. Two."),
        ("the ''Iliad'''s hero and ''{{lang|fr|x}}'' and '''''both'''''", "the Iliad's hero and  and both"),
        ("rock ''''n roll", "rock 'n roll"),
    ],
)
def test_prose_of_an_article(markup, prose):
    assert plain_text(markup) == prose


def test_files_are_documents_and_rows_are_documents(tmp_path):
    (tmp_path / "one.txt").write_text("First line.\nSecond line.", encoding="utf-8")
    rows = [{"text": "Übermut", "n": 1}, {"text": "  ", "n": 2}, {"text": "last", "n": 3}]
    (tmp_path / "many.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")

    found = list(documents(FileText(("one.txt", "many.jsonl")), tmp_path))

    assert found == ["First line.\nSecond line.", "Übermut", "last"]


def test_a_column_without_text_is_named(tmp_path):
    (tmp_path / "many.jsonl").write_text('{"text": 3}\n', encoding="utf-8")

    with pytest.raises(FormatError, match="a row has no text there") as caught:
        list(documents(FileText(("many.jsonl",)), tmp_path))

    assert (caught.value.file, caught.value.where, caught.value.observed) == ("many.jsonl", "text", 3)


def test_files_outside_the_repo_and_absent_ones_are_refused(tmp_path):
    with pytest.raises(FormatError, match="absent"):
        list(documents(FileText(("gone.txt",)), tmp_path))
    with pytest.raises(FormatError):
        list(documents(FileText(("../out.txt",)), tmp_path))


def test_the_digest_follows_the_content_of_files(tmp_path):
    file, source = tmp_path / "a.txt", FileText(("a.txt",))
    file.write_text("one", encoding="utf-8")
    one = source_digest(source, tmp_path)
    file.write_text("two", encoding="utf-8")
    two = source_digest(source, tmp_path)
    file.write_text("one", encoding="utf-8")

    assert source_digest(source, tmp_path) == one != two
    hub = HubText("lab/corpus", "main")
    assert source_digest(hub, tmp_path) != source_digest(HubText("lab/corpus", "v2"), tmp_path)


# A table's lines, a template's or a link's brackets, a tag, marks of emphasis, attributes of a cell.
LEFTOVER = re.compile(
    r"^[|!]|^\{\||\|\||\[\[|\]\]|\{\{|\}\}|</?[a-z]|''|^(file|image|category):|\b(bgcolor|colspan|rowspan|style|align)\s*=",
    re.IGNORECASE,
)


def test_the_wikipedia_sample():
    articles = list(documents(OfflineText(text.WIKIPEDIA), text.Path()))

    assert articles[0].startswith("Anarchism is")
    assert len(articles) == 106
    lines = [line for article in articles for line in article.splitlines()]
    assert [line for line in lines if LEFTOVER.search(line)] == []
    # Other markup rules, or another parser, make another text, on which an SAE is another.
    assert sha256_text("\0".join(articles)) == text.PROSE_SHA256


def test_the_digest_of_the_sample_follows_its_prose(monkeypatch, tmp_path):
    before = source_digest(OfflineText(text.WIKIPEDIA), tmp_path)

    monkeypatch.setattr(text, "PROSE_SHA256", "0" * 64)

    assert source_digest(OfflineText(text.WIKIPEDIA), tmp_path) != before


def test_another_sample_under_the_package_name_is_refused(monkeypatch):
    monkeypatch.setattr(text, "_SHA256", "0" * 64)

    with pytest.raises(SteerEvalError, match="has another"):
        next(documents(OfflineText(text.WIKIPEDIA), text.Path()))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"null\n", "line 1: the row is no object"),
        ("a.jsonl", b'{"text": "a"}\n[]\n', "line 2: the row is no object"),
        ("a.jsonl", b'{"text": "a"}\n\n{"text": ', "line 3: not JSON"),
        ("a.jsonl", b'{"words": "a"}\n', "no text there"),
        ("a.jsonl", b"\xff\xfe{", "can't be read"),
        ("a.txt", b"\xff\xfe", "can't be read"),
    ],
)
def test_a_file_that_is_no_text_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)

    with pytest.raises(FormatError) as caught:
        list(documents(FileText((name,)), tmp_path))
    assert caught.value.file == name
    assert message in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\n\n", b'{"text": " "}\n'])
def test_a_file_without_text_has_no_documents(tmp_path, content):
    (tmp_path / "a.jsonl").write_bytes(content)

    assert list(documents(FileText(("a.jsonl",)), tmp_path)) == []


def test_without_its_package_the_sample_says_what_to_install(monkeypatch):
    monkeypatch.setattr(text, "_PACKAGE", "no-such-package-at-all")

    with pytest.raises(SteerEvalError, match="not installed") as caught:
        next(documents(OfflineText(text.WIKIPEDIA), text.Path()))

    assert "steer-eval[sae]" in caught.value.fix


_STREAM = """
import json
from pathlib import Path
from steer_eval.errors import SteerEvalError
from steer_eval.sae.text import HubText, documents
try:
    print(json.dumps(list(documents(HubText("lab/corpus", {revision!r}, column="body"), Path()))))
except SteerEvalError as error:
    print(json.dumps([str(error), error.fix]))
"""


def test_a_hub_dataset_is_streamed_at_its_revision(hub, tmp_path):
    hub.add_user("lab")
    rows = [{"body": "one", "n": 1}, {"body": "two", "n": 2}]
    first = hub.upload("lab/corpus", "dataset", {"data/train.jsonl": "\n".join(map(json.dumps, rows)).encode()})
    hub.upload("lab/corpus", "dataset", {"data/train.jsonl": b'{"body": "changed", "n": 1}\n'})
    env = hub.environment(tmp_path / "home", HF_DATASETS_OFFLINE="0")

    def streamed(revision: str) -> list[str]:
        return run_client(_STREAM.format(revision=revision), env)

    assert streamed(first) == ["one", "two"]
    assert streamed("main") == ["changed"]
    message, fix = streamed("no-such-revision")
    assert "lab/corpus can't be streamed" in message
    assert "revision" in fix
