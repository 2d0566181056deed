"""The Hub of the tests, read by the clients that its users have: what arrives is what git and LFS storage hold."""

from __future__ import annotations

import hashlib
import http.client
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch
from hub_fixtures import run_client, run_python
from hub_server import HubServer, Refusal
from safetensors.torch import load_file, save_file
from tiny_models import save_tiny_model

SNAPSHOTS = """
import json, os, sys
from pathlib import Path
from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download, try_to_load_from_cache
from huggingface_hub import _CACHED_NO_EXIST, errors

first, told = sys.argv[1], {}
def content(folder):
    folder = Path(folder)
    return {p.relative_to(folder).as_posix(): p.read_bytes().hex() for p in folder.rglob("*") if p.is_file()}

latest = snapshot_download("steer/m")
told["latest"] = [Path(latest).name, content(latest)]
for name, revision in (("tag", "v1"), ("commit", first), ("short", first[:9]), ("pull request", "refs/pr/1")):
    folder = snapshot_download("steer/m", revision=revision, allow_patterns=["*.txt"])
    told[name] = [Path(folder).name, content(folder)]
verified = HfApi().verify_repo_checksums("steer/m")
told["verified"] = [verified.checked_count, verified.mismatches, verified.missing_paths]
told["data"] = content(snapshot_download("steer/m", repo_type="dataset"))
try:
    hf_hub_download("steer/m", "absent.txt")
except errors.RemoteEntryNotFoundError:
    told["absent"] = try_to_load_from_cache("steer/m", "absent.txt") is _CACHED_NO_EXIST
system = HfFileSystem()
told["listed"] = sorted(system.ls("steer/m", detail=False))
told["globbed"] = system.glob("steer/m@v1/**/*.txt")
with system.open("datasets/steer/m/folder/rows.bin", "rb", block_size=1024) as file:
    file.seek(3000)
    told["slice"] = file.read(8).hex()
api = HfApi()
header = api.parse_safetensors_file_metadata("steer/m", "vectors/v.safetensors")
told["header"] = [header.metadata, {name: [t.dtype, t.shape] for name, t in header.tensors.items()}]
whole = api.get_safetensors_metadata("steer/m")
told["parameters"] = [whole.sharded, whole.parameter_count]
told["dry"] = [(f.filename, f.file_size, f.is_cached) for f in snapshot_download("steer/m", dry_run=True)]
print(json.dumps(told))
"""

OFFLINE = """
import json
from pathlib import Path
from huggingface_hub import errors, snapshot_download
told = [Path(snapshot_download("steer/m")).name]
try:
    snapshot_download("steer/other")
except errors.LocalEntryNotFoundError as error:
    told.append(type(error).__name__)
print(json.dumps(told))
"""


def hexes(files: dict[str, bytes], suffix: str = "") -> dict[str, str]:
    return {path: content.hex() for path, content in files.items() if path.endswith(suffix)}


@pytest.fixture
def tensors(tmp_path: Path) -> dict[str, bytes]:
    generator = torch.Generator().manual_seed(7)
    vectors = {"v": torch.randn(64, 1000, generator=generator), "bias": torch.randn(3, generator=generator)}
    save_file(vectors, tmp_path / "v.safetensors", metadata={"layer": "7"})
    save_file({"w": torch.zeros(5, 4)}, tmp_path / "model.safetensors")
    return {name: (tmp_path / name).read_bytes() for name in ("v.safetensors", "model.safetensors")}


def test_snapshots_ranges_and_the_cache(hub: HubServer, tmp_path: Path, tensors: dict[str, bytes]) -> None:
    first = hub.upload("steer/m", "model", {"a.txt": b"one", "sub/b.txt": b"b"}, message="One")
    repo = hub.repository("steer/m")
    repo.git.move("refs/tags/v1", first, "0" * 40)
    repo.git.move("refs/pr/1", first, "0" * 40)
    proposal = hub.upload("steer/m", "model", {"pr.txt": b"pr"}, revision="refs/pr/1")
    files = {"a.txt": b"two", "vectors/v.safetensors": tensors["v.safetensors"]}
    second = hub.upload("steer/m", "model", {**files, "model.safetensors": tensors["model.safetensors"]}, message="Two")
    rows = bytes(range(256)) * 40
    hub.upload("steer/m", "dataset", {"folder/rows.bin": rows})
    hub.tree_page = 2

    told = run_client(SNAPSHOTS, hub.environment(tmp_path / "home"), first)
    assert told["latest"] == [second, hexes(hub.files("steer/m"))]
    assert told["tag"] == told["commit"] == told["short"] == [first, hexes(hub.files("steer/m", revision="v1"), ".txt")]
    assert told["pull request"] == [proposal, hexes(hub.files("steer/m", revision="refs/pr/1"), ".txt")]
    assert told["verified"] == [5, [], []]
    assert told["data"] == hexes(hub.files("steer/m", "dataset"))
    assert told["absent"], "that a file is missing is cached too"
    assert told["listed"] == [
        f"steer/m/{name}" for name in (".gitattributes", "a.txt", "model.safetensors", "sub", "vectors")
    ]
    assert sorted(told["globbed"]) == ["steer/m@v1/a.txt", "steer/m@v1/sub/b.txt"]
    assert told["slice"] == rows[3000:3008].hex()
    assert told["header"] == [{"layer": "7"}, {"v": ["F32", [64, 1000]], "bias": ["F32", [3]]}]
    assert told["parameters"] == [False, {"F32": 20}]
    assert sorted(told["dry"]) == sorted([path, len(content), True] for path, content in hub.files("steer/m").items())

    # Large files come from the other host, without the token; the header of one with a range only.
    stored = [row for row in hub.requests if row.host == "storage"]
    assert stored
    assert not any("authorization" in row.headers for row in stored)
    header = [row for row in stored if row.headers.get("range") == "bytes=0-100000"]
    assert [(row.status, row.sent) for row in header] == [(206, 100_001), (206, len(tensors["model.safetensors"]))]
    assert any("cursor=" in row.path for row in hub.requests), "trees of more than one page"

    hub.requests.clear()
    offline = run_client(OFFLINE, hub.environment(tmp_path / "home", HF_HUB_OFFLINE="1"))
    assert offline == [second, "LocalEntryNotFoundError"]
    assert hub.requests == []


DOWNLOAD = """
import hashlib, json
from pathlib import Path
from huggingface_hub import HfApi, hf_hub_download
content = Path(hf_hub_download("steer/m", "large.bin")).read_bytes()
mismatches = [mismatch["path"] for mismatch in HfApi().verify_repo_checksums("steer/m").mismatches]
print(json.dumps([hashlib.sha256(content).hexdigest(), mismatches]))
"""


def test_a_download_that_is_cut_goes_on_where_it_was(hub: HubServer, tmp_path: Path) -> None:
    chunk = 10 * 2**20
    content = bytes(range(256)) * 4 * 1024 * 11
    hub.upload("steer/m", "model", {"large.bin": content})
    hub.cut("GET", "^/lfs/", after=chunk + 1000)
    hub.cut("GET", "^/lfs/", after=100)
    assert run_client(DOWNLOAD, hub.environment(tmp_path)) == [hashlib.sha256(content).hexdigest(), []]
    stored = [row for row in hub.requests if row.host == "storage"]
    assert [row.sent for row in stored] == [chunk + 1000, 100, len(content) - chunk]
    # The client keeps whole pieces of 10 MiB.
    assert [row.headers.get("range") for row in stored] == [None, f"bytes={chunk}-", f"bytes={chunk}-"]


def test_a_corrupt_object_is_found_by_its_checksum(hub: HubServer, tmp_path: Path) -> None:
    content = bytes(range(250))
    hub.upload("steer/m", "model", {"large.bin": content, "small.txt": b"s"})
    hub.corrupt("steer/m", "model", "large.bin")
    corrupted = content[:-1] + bytes([content[-1] ^ 0xFF])
    told = run_client(DOWNLOAD, hub.environment(tmp_path))
    assert told == [hashlib.sha256(corrupted).hexdigest(), ["large.bin"]]
    with pytest.raises(ValueError, match=r"small\.txt is not in LFS storage"):
        hub.corrupt("steer/m", "model", "small.txt")


CARD = """---
configs:
- config_name: sweep
  data_files:
  - {split: tiny, path: sweep/tiny.jsonl}
  - {split: small, path: sweep/small.jsonl}
- config_name: judge
  default: true
  data_files: judge/*.jsonl
---
"""

DATASETS = """
import json, sys
from datasets import get_dataset_config_names, load_dataset
told = {name: {split: rows.to_list() for split, rows in load_dataset("steer/data", name).items()}
        for name in get_dataset_config_names("steer/data")}
told["default"] = load_dataset("steer/data", split="train").to_list()
told["old"] = load_dataset("steer/data", "judge", split="train", revision=sys.argv[1]).to_list()
print(json.dumps(told))
"""


def jsonl(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_datasets_loads_every_config(hub: HubServer, tmp_path: Path) -> None:
    tables = {
        "sweep/tiny.jsonl": [{"layer": 1, "text": "a"}, {"layer": 2, "text": "ü"}],
        "sweep/small.jsonl": [{"layer": 3, "text": "c"}],
    }
    judge = [{"score": 0.5}]
    files = {"README.md": CARD.encode(), "judge/a.jsonl": jsonl({"score": 0.25})}
    old = hub.upload("steer/data", "dataset", files | {path: jsonl(*rows) for path, rows in tables.items()})
    hub.upload("steer/data", "dataset", {"judge/a.jsonl": jsonl(*judge)})
    told = run_client(DATASETS, hub.environment(tmp_path, HF_DATASETS_DISABLE_PROGRESS_BARS="1"), old)
    assert told == {
        "sweep": {"tiny": tables["sweep/tiny.jsonl"], "small": tables["sweep/small.jsonl"]},
        "judge": {"train": judge},
        **{"default": judge, "old": [{"score": 0.25}]},
    }


TRANSFORMERS = """
import sys
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("steer/llama", dtype="float32")
tokenizer = AutoTokenizer.from_pretrained("steer/llama")
print(tokenizer.decode(tokenizer("The river rose").input_ids, skip_special_tokens=True))
save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, sys.argv[1])
"""


def test_transformers_loads_a_model(hub: HubServer, tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model")
    hub.upload("steer/llama", "model", tmp_path / "model")
    loaded = tmp_path / "loaded.safetensors"
    assert run_python(TRANSFORMERS, hub.environment(tmp_path / "home"), str(loaded)).strip() == "The river rose"
    expected, tensors = model.module.state_dict(), load_file(loaded)
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name].float()) for name in expected)


def test_git_clones(hub: HubServer, tmp_path: Path) -> None:
    """git-lfs is not needed to see which files are pointers."""
    first = hub.upload("steer/m", "model", {"a.txt": b"one"}, message="One")
    hub.upload("steer/m", "model", {"a.txt": b"two", "w.bin": b"w" * 300}, message="Two")
    env = {name: value for name, value in hub.environment(tmp_path).items() if not name.startswith("GIT_")}
    env |= {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_LFS_SKIP_SMUDGE": "1"}

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *arguments], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)

    assert git("clone", "--quiet", f"{hub.url}/steer/m", "open").returncode == 0
    assert (tmp_path / "open/a.txt").read_bytes() == b"two"
    assert (tmp_path / "open/w.bin").read_text().endswith("size 300\n")
    assert git("-C", "open", "log", "--format=%s").stdout.splitlines() == ["Two", "One", "initial commit"]
    assert git("-C", "open", "rev-parse", "HEAD~1").stdout.strip() == first
    assert "501" in git("-C", "open", "push", "origin", "HEAD:refs/heads/other").stderr

    hub.set_private("steer/m")
    assert "could not read Username" in git("clone", "--quiet", f"{hub.url}/steer/m.git", "closed").stderr
    with_token = hub.url.replace("://", f"://steer:{hub.token}@")
    assert git("clone", "--quiet", "--depth=1", f"{with_token}/steer/m.git", "mine").returncode == 0
    assert (tmp_path / "mine/a.txt").read_bytes() == b"two"


def test_the_hf_command_uploads_and_downloads(hub: HubServer, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "README.md").write_text("---\nlicense: mit\n---\n")
    (source / "deep/w.bin").write_bytes(bytes(500))

    def hf(*arguments: str) -> str:
        command = [Path(sys.executable).with_name("hf"), *arguments]
        process = subprocess.run(command, env=hub.environment(tmp_path), capture_output=True, text=True, timeout=60)
        assert process.returncode == 0, process.stderr
        return process.stdout

    hf("upload", "steer/cli", str(source), ".", "--private", "--commit-message", "By hand")
    assert hub.repository("steer/cli").private
    assert hub.commits("steer/cli")[0].title == "By hand"
    assert "steer" in hf("auth", "whoami")
    target = tmp_path / "target"
    hf("download", "steer/cli", "--local-dir", str(target))
    copied = {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()}
    copied = {path: content for path, content in copied.items() if not path.startswith(".cache/")}
    assert copied == hub.files("steer/cli")
    assert copied["deep/w.bin"] == bytes(500)


RANGES: dict[str | None, tuple[int, int, int]] = {
    **{None: (200, 0, 10), "bytes=0-3": (206, 0, 4), "bytes=4-": (206, 4, 10), "bytes=-3": (206, 7, 10)},
    **{"bytes=8-99": (206, 8, 10), "bytes=-99": (206, 0, 10), "bytes=10-": (416, 0, 0), "bytes=5-2": (416, 0, 0)},
    **{"bytes=0-1,4-5": (200, 0, 10), "bytes=-": (200, 0, 10)},
}
"""Ranges of ten bytes: the answer's status, and the first byte that is sent and the first that is not."""


@pytest.mark.parametrize("path", ["small.txt", "large.bin"])
def test_ranges(hub: HubServer, path: str) -> None:
    """As RFC 9110 has them; what asks for several ranges, or for nothing sensible, gets the whole file."""
    content = b"0123456789"
    hub.upload("steer/m", "model", {path: content})
    for asked, (code, first, last) in RANGES.items():
        headers = {} if asked is None else {"Range": asked}
        status, answer, body = get(hub.url, f"/steer/m/resolve/main/{path}", headers)
        if path == "large.bin":
            assert status == 302
            assert body != content
            assert answer["X-Linked-Size"] == "10"
            status, answer, body = get(answer["Location"], "", headers)
        assert (status, body) == (code, content[first:last]), asked
        assert answer.get("Content-Range") == {206: f"bytes {first}-{last - 1}/10", 416: "bytes */10"}.get(code)


def get(
    url: str, path: str, headers: dict[str, str], method: str = "GET", body: bytes | None = None
) -> tuple[int, Any, bytes]:
    parts = urlsplit(url + path)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)
    connection.request(method, f"{parts.path}?{parts.query}", body, headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, response.headers, content


def test_an_upload_has_the_content_of_its_name(hub: HubServer) -> None:
    hub.upload("steer/m", "model", {"a.txt": b"a"})
    repo = hub.repository("steer/m")
    oid = hashlib.sha256(b"right").hexdigest()
    link = hub.storage.link("PUT", repo, oid)
    status, headers, _ = get(link, "", {}, "PUT", b"wrong")
    assert (status, oid in headers["X-Error-Message"]) == (400, True)
    assert oid not in repo.lfs
    assert get(link, "", {}, "PUT", b"right")[0] == 200
    assert repo.lfs.read(oid) == b"right"


def test_what_is_not_there_is_refused_as_such(hub: HubServer) -> None:
    """Never with a 500, which clients send again and again."""
    hub.upload("steer/m", "model", {"large.bin": b"0123"})
    for method, path in (("GET", "/api/spaces/steer/m"), ("POST", "/api/models/steer/m/like"), ("PUT", "/x")):
        status, headers, body = get(hub.url, path, {}, method)
        assert (status, headers["X-Error-Message"]) == (501, f"the test server has no {method} {path}")
        assert path in json.loads(body)["error"]
    _, headers, _ = get(hub.url, "/steer/m/resolve/main/large.bin", {})
    location = headers["Location"]
    assert get(location, "", {})[::2] == (200, b"0123")
    assert get(location[:-1] + ("0" if location[-1] != "0" else "1"), "", {})[0] == 403
    assert get(location, "", {}, "PUT")[0] == 403, "a link to read is no link to write"

    def mistake(_request: object) -> None:
        raise ZeroDivisionError

    hub.before("GET", "/api/models/", mistake)
    assert get(hub.url, "/api/models/steer/m", {})[0] == 501
    assert "ZeroDivisionError" in hub.failures.pop()
    hub.refuse("GET", "/api/models/", 503, "Down for a while", times=1)
    assert get(hub.url, "/api/models/steer/m", {})[1]["X-Error-Message"] == "Down for a while"
    assert get(hub.url, "/api/models/steer/m", {})[0] == 200
    with pytest.raises(Refusal, match="Invalid rev id"):
        hub.upload("steer/m", "model", {}, revision="nowhere")
