"""The tokens of these tests are made up, and put together at run time, so that no scanner takes them for real ones."""

from __future__ import annotations

import json
import random
import string
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steer_eval.publish import secrets
from steer_eval.publish.secrets import find, masked, scan

LETTERS = string.ascii_letters + string.digits


def body(length: int, letters: str = LETTERS) -> str:
    return "".join(random.Random(length).choices(letters, k=length))  # noqa: S311


TOKENS = {
    "Hugging Face": "hf_" + body(34),
    "Anthropic": "sk-ant-" + "api03-" + body(80),
    "OpenAI": "sk-" + "proj-" + body(48),
    "DeepSeek": "sk-" + body(32, "0123456789abcdef"),
    "GitHub": "gh" + "p_" + body(36),
    "GitHub, fine-grained": "github_" + "pat_" + body(82),
    "GitLab": "gl" + "pat-" + body(20),
    "AWS": "AK" + "IA" + body(16, string.ascii_uppercase + string.digits),
    "Google": "AI" + "za" + body(35),
    "Slack": "xox" + "b-" + body(30, string.digits),
    "Stripe": "sk_" + "live_" + body(24),
    "PyPI": "pypi" + "-" + body(120),
    "npm": "np" + "m_" + body(36),
    "Replicate": "r8" + "_" + body(37),
    "Groq": "gs" + "k_" + body(52),
    "xAI": "xa" + "i-" + body(80),
    "JSON web token": "ey" + "J" + body(20) + ".ey" + "J" + body(40) + "." + body(43),
}


def found(folder: Path, *names: str) -> list[tuple[str, str, str]]:
    return [(finding.rule, finding.file, finding.where) for _, finding in scan(folder, "repo", names)]


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS)
@pytest.mark.parametrize("around", ['{{"key": "{}"}}', "export X={}\n", "a ({}).", "https://host/?t={}&x=1"])
def test_a_token_is_found_with_its_line_and_never_shown_whole(tmp_path, token, around):
    (tmp_path / "a.txt").write_text(f"first\nsecond {around.format(token)} third\n")

    [(path, finding)] = scan(tmp_path, "repo", ["a.txt"])

    assert (path, finding.rule, finding.file, finding.where) == ("a.txt", "publish-secret", "repo/a.txt", "line 2")
    assert token not in json.dumps(finding.to_json())
    # Of all that is secret, at most the four characters that say what kind of token it is.
    assert not any(token[start : start + 12] in json.dumps(finding.to_json()) for start in range(len(token) - 12))


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN " + "RSA PRIVATE KEY-----\nMIIE",
        "-----BEGIN " + "PRIVATE KEY-----",
        "-----BEGIN " + "OPENSSH PRIVATE KEY-----",
        "-----BEGIN PGP " + "PRIVATE KEY BLOCK-----",
        "https://alice:" + body(10) + "@host.example/x",
        "AWS_SECRET_ACCESS_KEY" + " = '" + body(40) + "'",
        "WANDB_API_KEY" + ": " + body(40, "0123456789abcdef"),
        '{\\"HF_TOKEN\\": \\"' + body(20) + '\\"}',
        "aws_secret_access_key" + " = " + body(40, LETTERS + "/+"),
        '"wandb_api_key"' + ': "' + body(40, "0123456789abcdef") + '"',
        "password" + ": " + body(20),
        "AccountKey" + "=" + body(86) + "==",
        '"private_key_id"' + ': "' + body(40, "0123456789abcdef") + '"',
        "Authorization: Bearer" + " " + body(40),
        "machine huggingface.co login me password" + " " + body(30),
        "https://hooks.slack.com/services" + "/T" + "A1B2C3D4E" + "/B" + "A1B2C3D4E" + "/" + body(24),
        "https://discord.com/api/webhooks" + "/123456789012345678/" + body(68),
    ],
)
def test_keys_passwords_and_variables_are_found(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)

    assert found(tmp_path, "a.txt") == [("publish-secret", "repo/a.txt", "line 1")]


@pytest.mark.parametrize(
    "path",
    [
        "/home/alice/models",
        "/home/alice",
        "/Users/alice/x",
        "C:\\Users\\alice\\x",
        '{"p": "c:\\\\Users\\\\alice"}',
        "D:\\Documents and Settings\\alice",
        "file:///home/alice/x",
        "/mnt/c/Users/alice",
        '"\\/home\\/alice\\/x"',
        "cache=/home/alice",
        "/root" + "/models/run.log",
        "/mnt/home/alice/x",
        "/home/j\u00f6rg/x",
    ],
)
def test_a_home_path_is_found(tmp_path, path):
    (tmp_path / "a.json").write_text(f"\n\n{path}\n", encoding="utf-8")

    assert found(tmp_path, "a.json") == [("publish-home-path", "repo/a.json", "line 3")]


@pytest.mark.parametrize(
    "text",
    [
        "sha256:" + body(64, "0123456789abcdef"),
        "hf_" + "x" * 34,
        "hf_" + "YOUR" + body(30),
        "hf_hub_download(repo_id)",
        "AKIA" + "IOSFODNN7EXAMPLE",
        "HF_TOKEN=$HF_TOKEN",
        "token: ${{ secrets.HF_TOKEN }}",
        "TOKEN=os.environ.HF_TOKEN_FOR_THE_JOB",
        "api_key = os.environ['OPENAI_API_KEY']",
        "api_key=getenv_or_fail_for_provider_2",
        "secret: a_function_of_the_hidden_state",
        "my password: it is the name of my dog",
        "bos_token: <|im_start|>",
        "the bearer of this letter, who is 40",
        "https://host.example/root/work",
        "HF_TOKEN=<your token>",
        "the tokens: 1234567890123456789",
        "https://host.example:8080/home/alice",
        "https://host.example/Users/alice",
        "see ~/home/alice and x/home/alice",
        "/home/user/x and /home/runner/work and C:\\Users\\runneradmin and /Users/Shared",
        "MAX_NEW_TOKENS = 80",
        "task-" + "risk-" + "sk-short",
        "desk-" + body(40),
        "sk-learn-is-a-name-of-many-words-and-no-token",
        "mailto:someone@host.example",
        "ssh://git@host.example/x",
    ],
)
def test_what_only_looks_like_one_is_none(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)

    assert found(tmp_path, "a.txt") == []


def test_the_metadata_and_names_of_safetensors_are_searched_and_their_numbers_are_not(tmp_path):
    header = {
        "__metadata__": {"source": "/home/alice/x.pt", "note": TOKENS["Hugging Face"]},
        "vector": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]},
    }
    text = json.dumps(header).encode()
    (tmp_path / "v.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"/home/al")

    assert sorted(found(tmp_path, "v.safetensors")) == [
        ("publish-home-path", "repo/v.safetensors", "metadata: source"),
        ("publish-secret", "repo/v.safetensors", "metadata: note"),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252"])
def test_any_encoding_of_a_text_is_read(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes(f"Gr\u00fc\u00dfe\n{TOKENS['GitHub']}\n".encode(encoding))

    assert found(tmp_path, "a.txt") == [("publish-secret", "repo/a.txt", "line 2")]


def test_binary_files_are_searched_too(tmp_path):
    (tmp_path / "a.png").write_bytes(bytes(range(256)) * 4 + b"tEXtSource\0/home/alice/plot.py" + bytes(range(256)))

    assert [rule for rule, *_ in found(tmp_path, "a.png")] == ["publish-home-path"]


def test_many_findings_of_a_file_are_counted(tmp_path):
    (tmp_path / "a.txt").write_text("/home/alice/x\n" * 50)

    findings = [finding for _, finding in scan(tmp_path, "repo", ["a.txt"])]

    assert len(findings) == secrets.MAX_ALIKE + 1
    assert findings[-1].message.startswith(f"{50 - secrets.MAX_ALIKE} more")


@settings(max_examples=60, deadline=None)
@given(
    before=st.integers(0, 300),
    size=st.integers(128, 300),
    overlap=st.integers(60, 120),
    lines=st.booleans(),
    after=st.integers(0, 300),
)
def test_a_secret_is_found_once_wherever_it_lies_in_a_large_file(tmp_path_factory, before, size, overlap, lines, after):
    """With pieces of a few hundred characters, so that every place relative to their ends occurs."""
    file = tmp_path_factory.mktemp("scan") / "a.txt"
    filler = "ab\n" if lines else "ab "
    file.write_text(filler * before + TOKENS["Hugging Face"] + "\n" + filler * after)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets, "CHUNK", size)
        patch.setattr(secrets, "OVERLAP", overlap)

        assert found(file.parent, "a.txt") == [
            ("publish-secret", "repo/a.txt", f"line {before + 1 if lines else 1}"),
        ]


@given(st.text(max_size=200))
def test_no_text_breaks_the_search_and_no_match_is_shown_whole(text):
    for pattern, match in find(text + TOKENS["npm"]):
        assert pattern.kind
        assert TOKENS["npm"] not in masked(match)
