"""What a study without `study.yaml` is called, and what its authors say of it that no data can.

Invariant: names, licence, tags and citation come from options, from the front matter and the code of the present cards,
or from the names of the folders; only what has the form of such a thing is taken, and no sentence of a card is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.formats.card import front_matter

_ID = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9](?:[\w.-]*\w)?"
_HUB_ID = re.compile(_ID)
_DOWNLOAD = re.compile(rf"hf_hub_download\(\s*(?:repo_id\s*=\s*)?[\"'](?P<id>{_ID})[\"']")
_CITED_URL = re.compile(rf"\burl\s*=\s*[{{\"]https://huggingface\.co/(?P<id>(?!datasets/|spaces/){_ID})[}}\"]")
_DATA = re.compile(rf"huggingface\.co/datasets/(?P<id>{_ID})")
_LICENSE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")
_TAG = re.compile(r"[\w][\w.:+ -]{0,63}")
_ENTRY = re.compile(r"^(?:```|~~~)bib\w*\n(?P<entry>.*?)^(?:```|~~~)", re.MULTILINE | re.DOTALL)
_YEAR = re.compile(r"\byear\s*=\s*[{\"]?(?P<year>[0-9]{4})\b")
_AUTHOR = re.compile(r"\bauthor\s*=\s*[{\"](?P<author>[^{}\"\\`#\n]{1,200})[}\"]")


@dataclass(frozen=True)
class Asked:
    """What the user says instead of the cards; None where nothing was said."""

    repo: str | None = None
    data: str | None = None
    license: str | None = None


@dataclass(frozen=True)
class Identity:
    """Names of a study.

    Args:
        repo: Hub id of the model repo.
        data: Hub id of the dataset repo.
        license: Licence of the model repo; None if nobody states one.
        data_license: Licence of the dataset repo.
        author: Who is cited.
        year: Year of the citation; None if nobody states one.
        tags: Tags that the present model card has.
        data_tags: Tags that the present dataset card has.
        language: Languages that the present cards state.
    """

    repo: str
    data: str
    license: str | None
    data_license: str | None
    author: str
    year: str | None
    tags: tuple[str, ...] = ()
    data_tags: tuple[str, ...] = ()
    language: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The model repo without its namespace."""
        return self.repo.rsplit("/", 1)[-1]

    @property
    def data_name(self) -> str:
        """The dataset repo without its namespace."""
        return self.data.rsplit("/", 1)[-1]


def identify(
    asked: Asked, card: str, data_card: str, *, folder: str, data_folder: str, ids: tuple[str | None, str | None]
) -> Identity:
    """Names of a study, from what is asked for and what is there.

    Args:
        asked: What the user says.
        card: Text of the model card; empty without one.
        data_card: Text of the dataset card; empty without one.
        folder: Name of the model repo's folder.
        data_folder: Name of the dataset repo's folder.
        ids: Hub ids of the two repos where they were opened by them.

    Raises:
        SteerEvalError: Nothing says under which namespace the repos are, or an id that is asked for is none.
    """
    for option, value in (("--repo-id", asked.repo), ("--data-id", asked.data)):
        if value is not None and not _HUB_ID.fullmatch(value):
            raise SteerEvalError(f"{option} {value} is no Hub id", "give it as NAMESPACE/NAME")
    if asked.license is not None and not _LICENSE.fullmatch(asked.license):
        raise SteerEvalError(f"--license {asked.license} is no licence identifier", "give one like apache-2.0")
    metadata, data_metadata = _metadata(card), _metadata(data_card)
    repo = asked.repo or ids[0] or _first(_DOWNLOAD, card) or _first(_CITED_URL, card)
    data = asked.data or ids[1] or _listed_id(metadata) or _first(_DATA, card)
    if repo is None and data is None:
        raise SteerEvalError(
            "nothing says what the repo is called on the Hub: no card names it", "give --repo-id NAMESPACE/NAME"
        )
    # Of one name the namespace of the other follows; the rest is the folder's.
    repo = repo or f"{str(data).partition('/')[0]}/{folder}"
    data = data or f"{repo.partition('/')[0]}/{data_folder}"
    license_ = asked.license or _license(metadata)
    return Identity(
        repo,
        data,
        license_,
        asked.license or _license(data_metadata) or license_,
        _cited(_AUTHOR, "author", card) or repo.partition("/")[0],
        _cited(_YEAR, "year", card),
        _tags(metadata),
        _tags(data_metadata),
        tuple(dict.fromkeys((*_words(metadata.get("language")), *_words(data_metadata.get("language"))))),
    )


def _metadata(card: str) -> dict[str, Any]:
    try:
        return front_matter(card, "README.md")
    except FormatError:
        # A bad front matter is a finding; it names nothing.
        return {}


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text)
    return match["id"] if match else None


def _listed_id(metadata: dict[str, Any]) -> str | None:
    return next((word for word in _words(metadata.get("datasets")) if _HUB_ID.fullmatch(word)), None)


def _license(metadata: dict[str, Any]) -> str | None:
    return next((word for word in _words(metadata.get("license")) if _LICENSE.fullmatch(word)), None)


def _tags(metadata: dict[str, Any]) -> tuple[str, ...]:
    return tuple(word for word in _words(metadata.get("tags")) if _TAG.fullmatch(word))


def _words(value: Any) -> Iterable[str]:
    listed = value if isinstance(value, list) else [value]
    return [each for each in listed if isinstance(each, str) and _TAG.fullmatch(each.replace("/", "-"))]


def _cited(pattern: re.Pattern[str], group: str, card: str) -> str | None:
    """A field of the first BibTeX entry of a card."""
    entry = _ENTRY.search(card)
    match = pattern.search(entry["entry"]) if entry else None
    return " ".join(match[group].split()) if match else None
