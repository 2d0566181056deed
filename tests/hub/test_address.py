"""What texts name: a repo of the Hub, at a revision or none, or nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer_eval.errors import SteerEvalError
from steer_eval.hub.address import HubAddress, parse_address

COMMIT = "0123456789abcdef0123456789abcdef01234567"

NAMES = {
    "lab/persona": HubAddress("lab/persona"),
    "lab/persona@v1": HubAddress("lab/persona", None, "v1"),
    "lab/persona@refs/pr/3": HubAddress("lab/persona", None, "refs/pr/3"),
    f"lab/persona.v2_x@{COMMIT}": HubAddress("lab/persona.v2_x", None, COMMIT),
    "hf://lab/persona": HubAddress("lab/persona"),
    "hf://lab/persona@v1": HubAddress("lab/persona", None, "v1"),
    "hf://models/lab/persona": HubAddress("lab/persona", "model"),
    "hf://datasets/lab/persona-data": HubAddress("lab/persona-data", "dataset"),
    "hf://datasets/lab/persona-data@refs/pr/3": HubAddress("lab/persona-data", "dataset", "refs/pr/3"),
    "hf://lab/persona@exp%2Fone": HubAddress("lab/persona", None, "exp/one"),
    "hf://lab/persona@v1/vectors/a.safetensors": HubAddress("lab/persona", None, "v1", "vectors/a.safetensors"),
    "https://huggingface.co/lab/persona": HubAddress("lab/persona", "model"),
    "https://huggingface.co/lab/persona/": HubAddress("lab/persona", "model"),
    "https://huggingface.co/lab/persona/tree/main": HubAddress("lab/persona", "model", "main"),
    "https://huggingface.co/datasets/lab/persona-data": HubAddress("lab/persona-data", "dataset"),
    f"https://hf.co/datasets/lab/d/tree/{COMMIT}": HubAddress("lab/d", "dataset", COMMIT),
    "https://huggingface.co/lab/persona/tree/main/saes": HubAddress("lab/persona", "model", "main", "saes"),
    "https://huggingface.co/lab/persona/blob/v1/README.md?download=true": HubAddress(
        "lab/persona", "model", "v1", "README.md"
    ),
}


@pytest.mark.parametrize(("text", "address"), NAMES.items(), ids=list(NAMES))
def test_a_repo_is_named(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    ["", "persona", "a/b/c", "/lab/persona", "../lab/persona", "./lab/persona", "lab/persona@", "lab/", "läb/persona",
     "https://example.org/lab/persona", "https://huggingface.co.example.org/lab/persona", "ftp://huggingface.co/a/b",
     "https://[bad/lab/persona", "file:///lab/persona", "lab/persona\n"],
)  # fmt: skip
def test_other_texts_name_none(text):
    assert parse_address(text) is None


@pytest.mark.parametrize(
    "text",
    ["hf://", "hf://lab", "hf://spaces/lab/demo", "hf://buckets/lab/files", "hf://dataset/lab/data", "hf://a--b/c",
     "https://huggingface.co/lab", "https://huggingface.co/spaces/lab/demo",
     "https://huggingface.co/lab/persona/discussions/3",
     "lab/persona@../../secret", "hf://lab/persona@..%2F..%2Fsecret"],
)  # fmt: skip
def test_what_is_meant_as_an_address_and_is_none_is_refused(text):
    with pytest.raises(SteerEvalError) as caught:
        parse_address(text)

    assert text in caught.value.message
    assert caught.value.fix


_PARTS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_]{0,12}", fullmatch=True)


@given(
    st.builds("{}/{}".format, _PARTS, _PARTS),
    st.sampled_from([None, "model", "dataset"]),
    st.none() | _PARTS | st.builds("{}/{}".format, _PARTS, _PARTS) | st.just(COMMIT),
    st.just("") | st.builds("{}/{}.md".format, _PARTS, _PARTS),
)
def test_an_address_is_read_back_from_its_uri(repo, kind, revision, path):
    address = HubAddress(repo, kind, revision, path)
    read = parse_address(address.uri)

    assert read is not None
    # `hf://models/` is never written: what the place wants goes without saying there.
    assert (read.id, read.revision, read.path) == (repo, revision, path)
    assert read.kind == ("dataset" if kind == "dataset" else None)


@given(st.text(max_size=40))
def test_no_text_makes_a_revision_that_leaves_the_cache(text):
    try:
        address = parse_address(f"lab/persona@{text}")
    except SteerEvalError:
        return
    assert address is None or address.revision is None or ".." not in address.revision
