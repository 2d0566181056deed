"""Tokens, keys and private paths in files that are about to be published.

Invariant: every file is searched, whatever it is: texts and small binary files from end to end, safetensors files in
their headers, where all their words are. A secret is never shown whole, not even in a finding about it.

The forms of tokens are those that their issuers document: a prefix and a length, so that checksums, which studies are
full of, are no secrets. What has no form of its own is known by the word before it: `api_key`, `password`, `Bearer`.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steer_eval.errors import FormatError
from steer_eval.findings import Finding
from steer_eval.formats.safetensors_file import read_header

CHUNK = 2**24
OVERLAP = 2**12
"""Characters that two chunks share; longer than any match."""
MAX_ALIKE = 20
"""Findings of one kind in one file that are shown."""
SHOWN = 4
_REVOKE = "take it out and revoke it: what was pushed once stays in the history"
_ALLOW = "take it out, or publish the file as it is with --allow"
_FIRST = "see the first ones"


@dataclass(frozen=True)
class Pattern:
    """What a secret looks like.

    Args:
        kind: What it is called in findings.
        form: Its form; the group `secret`, or else the whole match, is what is not shown.
        hints: Texts of which one is in every match; a search for them is fast.
    """

    kind: str
    form: re.Pattern[str]
    hints: tuple[str, ...]


def _token(kind: str, form: str, *hints: str) -> Pattern:
    """A token by its prefix, which no letter or digit stands before."""
    return Pattern(kind, re.compile(rf"(?<![A-Za-z0-9]){form}", re.ASCII), hints)


TOKENS: tuple[Pattern, ...] = (
    _token("a Hugging Face token", r"hf_(?:[a-z]+_)?[A-Za-z0-9]{30,128}", "hf_"),
    _token("a Hugging Face organization token", r"api_org_[A-Za-z0-9]{30,64}", "api_org_"),
    _token("an Anthropic key", r"sk-ant-[A-Za-z0-9_-]{20,256}", "sk-ant-"),
    _token(
        "a key of OpenAI or a provider like it", r"sk-(?!ant-)(?=[A-Za-z_-]{0,64}[0-9])[A-Za-z0-9_-]{32,256}", "sk-"
    ),
    _token("a GitHub token", r"gh[pousr]_[A-Za-z0-9]{36,255}", "ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    _token("a GitHub token", r"github_pat_[A-Za-z0-9_]{50,255}", "github_pat_"),
    _token("a GitLab token", r"glpat-[A-Za-z0-9_-]{20,255}", "glpat-"),
    _token("an AWS key id", r"(?:AKIA|ASIA)[0-9A-Z]{16}(?![0-9A-Za-z])", "AKIA", "ASIA"),
    _token("a Google API key", r"AIza[0-9A-Za-z_-]{35}", "AIza"),
    _token("a Slack token", r"xox[abeoprs]-[A-Za-z0-9-]{10,255}", "xox"),
    _token("a Stripe key", r"[rs]k_live_[0-9A-Za-z]{20,255}", "k_live_"),
    _token("a PyPI token", r"pypi-[A-Za-z0-9_-]{64,512}", "pypi-"),
    _token("an npm token", r"npm_[A-Za-z0-9]{36}", "npm_"),
    _token("a Replicate token", r"r8_[A-Za-z0-9]{37}", "r8_"),
    _token("a Groq key", r"gsk_[A-Za-z0-9]{48,64}", "gsk_"),
    _token("an xAI key", r"xai-[A-Za-z0-9]{48,128}", "xai-"),
    _token("a JSON web token", r"eyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,2000}\.[A-Za-z0-9_-]{10,600}", "eyJ"),
    Pattern(
        "a private key", re.compile(r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"), ("PRIVATE KEY",)
    ),
    Pattern(
        "a password in a URL",
        re.compile(r"[a-z][a-z0-9+.-]{1,16}://[A-Za-z0-9._%+-]{1,64}:(?P<secret>[!-.0-9;-?A-~]{1,128})@[A-Za-z0-9]"),
        ("://",),
    ),
    Pattern(
        "a secret in a variable",
        re.compile(
            r"(?<![A-Za-z0-9_])(?:[A-Z0-9]+_)*(?:API_KEY|SECRET|SECRET_ACCESS_KEY|SECRET_KEY|TOKEN|PASSWORD|PASSWD)"
            r"\\?[\"']?[ \t]{0,4}[=:][ \t]{0,4}\\?[\"']?(?P<secret>[A-Za-z0-9+/=_.-]{16,256})"
        ),
        ("API_KEY", "SECRET", "TOKEN", "PASSW"),
    ),
    Pattern(
        "a secret in a variable",
        # Words of ordinary sentences and settings stand here too, so that more is asked of the value.
        re.compile(
            r"(?:(?<![A-Za-z])token|(?:auth|access|api|hub|bot)[_-]?token|(?:api|account|access)[_-]?key|private_key_id"
            r"|secret|password|passwd)\\?[\"']?[ \t]{0,4}[=:][ \t]{0,4}\\?[\"']?"
            r"(?P<secret>(?=[A-Za-z0-9+/=_-]{0,40}[0-9])(?=[0-9]{0,40}[A-Za-z])[A-Za-z0-9+/=_-]{20,256})(?![\w.(\[])",
            re.IGNORECASE | re.ASCII,
        ),
        ("token", "key", "Key", "secret", "passw"),
    ),
    Pattern(
        "a token in a header",
        re.compile(r"[Bb]earer[ \t]{1,4}(?P<secret>(?=[A-Za-z._~+/-]{0,40}[0-9])[A-Za-z0-9._~+/-]{20,2000})"),
        ("earer ",),
    ),
    Pattern(
        "a password of .netrc",
        re.compile(r"machine\s{1,4}\S{1,200}\s{1,4}login\s{1,4}\S{1,64}\s{1,4}password\s{1,4}(?P<secret>\S{8,256})"),
        ("machine",),
    ),
    Pattern(
        "the address of a webhook",
        re.compile(r"hooks\.slack\.com/services/(?P<secret>T[A-Z0-9]{5,20}/B[A-Z0-9]{5,20}/[A-Za-z0-9]{16,64})"),
        ("hooks.slack.com",),
    ),
    Pattern(
        "the address of a webhook",
        re.compile(r"discord(?:app)?\.com/api/webhooks/[0-9]{10,24}/(?P<secret>[A-Za-z0-9_-]{40,128})"),
        ("/api/webhooks/",),
    ),
)

_SLASH, _BACKSLASH = r"\\?/", r"\\{1,4}"
_NAME = r"(?P<secret>[^\W_][\w.-]{0,63})"
HOMES: tuple[Pattern, ...] = (
    Pattern(
        "the path of a home folder",
        re.compile(
            rf"(?<![\w.~-])(?:{_SLASH}mnt{_SLASH}[a-z]|{_SLASH}(?:mnt|nfs|data|export|gpfs|lustre|scratch))?"
            rf"{_SLASH}(?:home|Users){_SLASH}{_NAME}"
        ),
        ("home", "Users"),
    ),
    Pattern("the path of a home folder", re.compile(rf"(?<![\w.~/-]){_SLASH}root{_SLASH}{_NAME}"), ("root",)),
    Pattern(
        "the path of a home folder",
        re.compile(rf"(?<![A-Za-z0-9])[A-Za-z]:{_BACKSLASH}(?:Users|Documents and Settings){_BACKSLASH}{_NAME}"),
        ("Users", "Documents and Settings"),
    ),
)
_NOBODY = frozenset(
    {"all", "default", "jovyan", "me", "name", "public", "runner", "runneradmin", "shared", "user", "username", "you"}
)
"""Names of home folders that are nobody's: of examples, and of machines that everybody is given."""
_PLACEHOLDER = re.compile(
    r"(.)\1{5}|example|your|placeholder|redacted|dummy|changeme|\.\.\.|os\.environ|getenv", re.IGNORECASE
)
MIN_DIFFERENT = 6
"""Different characters that a secret has at least; `xxxxxxxx` is none."""


def scan(folder: Path, name: str, paths: Iterable[str]) -> Iterator[tuple[str, Finding]]:
    """Search files for secrets and private paths.

    Args:
        folder: Where the files are.
        name: What to call the folder in findings.
        paths: The files, inside it.

    Yields:
        The path, and the finding.
    """
    for path in paths:
        file = f"{name}/{path}"
        found = list(_matches(folder / path, path))
        tokens = [(where, pattern, match) for where, pattern, match in found if pattern in TOKENS]
        homes = [(where, pattern, match) for where, pattern, match in found if pattern in HOMES]
        for where, pattern, match in tokens[:MAX_ALIKE]:
            message, fix = (
                f"this looks like {pattern.kind}",
                "take it out and revoke it: what was pushed once stays there",
            )
            yield path, Finding("publish-secret", "error", file, where, message, None, masked(match), fix)
        for where, pattern, match in homes[:MAX_ALIKE]:
            message = f"this looks like {pattern.kind}"
            yield path, Finding("publish-home-path", "error", file, where, message, None, masked(match), _ALLOW)
        more = max(len(tokens) - MAX_ALIKE, 0)
        if more:
            yield path, Finding("publish-secret", "error", file, "", f"{more} more of these in the file", fix=_FIRST)
        more = max(len(homes) - MAX_ALIKE, 0)
        if more:
            yield path, Finding("publish-home-path", "error", file, "", f"{more} more of these in the file", fix=_FIRST)


def find(text: str) -> Iterator[tuple[Pattern, re.Match[str]]]:
    """Secrets and private paths in a text, in the order of the patterns."""
    for pattern in (*TOKENS, *HOMES):
        if any(hint in text for hint in pattern.hints):
            for match in pattern.form.finditer(text):
                if _is_meant(pattern, match):
                    yield pattern, match


def masked(match: re.Match[str]) -> str:
    """A match with all of its secret hidden but the first characters, which say what it is."""
    start, end = match.span("secret") if "secret" in match.re.groupindex else match.span()
    hidden = match.string[start:end]
    # Of a private key only the header was matched, which is the same for all of them.
    if hidden.startswith("-----BEGIN"):
        return hidden
    kept = hidden[: min(SHOWN, len(hidden) // 4)]
    return f"{match.string[match.start() : start]}{kept}… ({len(hidden)} characters)"


def _is_meant(pattern: Pattern, match: re.Match[str]) -> bool:
    secret = match["secret"] if "secret" in match.re.groupindex else match[0]
    if pattern in HOMES:
        return secret.lower().rstrip(".") not in _NOBODY
    if secret.startswith("-----BEGIN"):
        return True
    return len(set(secret)) >= MIN_DIFFERENT and not _PLACEHOLDER.search(secret)


def _matches(file: Path, path: str) -> Iterator[tuple[str, Pattern, re.Match[str]]]:
    if path.endswith(".safetensors"):
        for key, text in _metadata(file, path).items():
            for pattern, match in find(text):
                yield f"metadata: {key}", pattern, match
        return
    lines, told = 1, -1
    for offset, text, last in _chunks(file):
        for pattern, match in sorted(find(text), key=lambda found: found[1].start()):
            # What begins in the part that the next chunk has as well is found there, whole.
            if not last and match.start() >= len(text) - OVERLAP:
                continue
            # Several patterns can fit one secret; the first to begin is told.
            if offset + match.start() > told:
                told = offset + match.end()
                yield f"line {lines + text.count(chr(10), 0, match.start())}", pattern, match
        lines += text.count("\n", 0, len(text) if last else len(text) - OVERLAP)


def _chunks(file: Path) -> Iterator[tuple[int, str, bool]]:
    """A file as text, in pieces that overlap: their offsets, and whether a piece is the last.

    All that is searched for is ASCII, so any encoding that keeps ASCII will do.
    """
    with file.open("rb") as raw:
        wide = raw.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    with file.open(encoding="utf-16" if wide else "latin-1", errors="replace", newline="") as stream:
        offset, text = 0, stream.read(CHUNK)
        while True:
            more = stream.read(CHUNK)
            yield offset, text, not more
            if not more:
                return
            offset += len(text) - OVERLAP
            text = text[-OVERLAP:] + more


def _metadata(file: Path, path: str) -> Mapping[str, str]:
    """The words in a safetensors file: its metadata, and the names of its tensors."""
    try:
        header: dict[str, Any] = read_header(file, name=path)
    except FormatError:
        # A finding of the check of all files.
        return {}
    metadata = header.pop("__metadata__", {})
    return {**metadata, "tensor names": "\n".join(header)}
