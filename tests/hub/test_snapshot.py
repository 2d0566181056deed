"""A commit of a Hub repo on this disk: fetched once, whole or in part, and held to the Hub's checksums."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from hub_repos import large_files, open_targets, put_study

from steer_eval.formats.kinds import kind_of

CARD = b"---\nlicense: mit\n---\n# Files\n"


def fetched(hub):
    """Paths of files whose content was sent, and requests altogether."""
    return [each.path for each in hub.requests if each.method == "GET" and each.sent and "/api/" not in each.path]


def test_a_study_comes_with_its_data_and_is_asked_for_once(hub, tmp_path):
    put_study(hub, tmp_path)
    env = hub.environment(tmp_path / "home")
    commits = hub.head("lab/persona", "model"), hub.head("lab/persona-data", "dataset")
    [first] = open_targets(env, "lab/persona", validate=True)

    assert (first["model"]["revision"], first["data"]["revision"]) == commits
    assert first["model"]["files"] == sorted(hub.files("lab/persona", "model", "main"))
    assert first["findings"] == []
    assert first["model"]["left"] == {}

    hub.requests.clear()
    again, pinned = open_targets(env, "lab/persona", f"lab/persona@{commits[0]}")
    assert again["model"] == first["model"]
    assert again["data"] == first["data"]
    assert fetched(hub) == []
    # The data repo is asked twice for its head; the model repo once, as a commit never moves.
    assert [each.path for each in hub.requests] == [
        "/api/models/lab/persona",
        "/api/datasets/lab/persona-data",
        "/api/datasets/lab/persona-data",
    ]

    hub.requests.clear()
    offline = open_targets({**env, "HF_HUB_OFFLINE": "1"}, "lab/persona", f"lab/persona@{commits[0]}", "lab/other")
    assert [each.get("model") for each in offline] == [again["model"], pinned["model"], None]
    assert "not in the cache" in offline[2]["error"]
    assert hub.requests == []


def test_all_names_of_a_repo_are_the_same_repo(hub, tmp_path):
    put_study(hub, tmp_path)
    names = [
        "lab/persona",
        "lab/persona@main",
        "hf://lab/persona",
        "hf://models/lab/persona@main",
        f"{hub.url}/lab/persona",
        f"{hub.url}/lab/persona/tree/main",
        "hf://datasets/lab/persona-data",
        f"{hub.url}/datasets/lab/persona-data",
    ]
    opened = open_targets(hub.environment(tmp_path / "home"), *names)

    assert [each["model"]["name"] for each in opened] == names
    assert len({each["model"]["folder"] for each in opened[:6]}) == 1
    assert opened[0]["model"]["revision"] == hub.head("lab/persona", "model")
    assert {each["model"]["revision"] for each in opened[6:]} == {hub.head("lab/persona-data", "dataset")}


def test_the_data_is_opened_at_the_commit_that_is_pinned(hub, tmp_path):
    put_study(hub, tmp_path)
    pinned = hub.head("lab/persona-data", "dataset")
    config = f'{{"data": "lab/persona-data", "data_revision": "{pinned}"}}'.encode()
    hub.upload("lab/persona", "model", {"config.json": config})
    hub.upload("lab/persona-data", "dataset", {"notes.txt": b"Later.\n"})
    hub.upload("lab/other", "model", {**hub.files("lab/persona", "model", "main"), "config.json": config.replace(
        b'"lab/persona-data"', b'"lab/else"')})  # fmt: skip
    env = hub.environment(tmp_path / "home")
    found, other = open_targets(env, "lab/persona", "lab/other")

    assert hub.head("lab/persona-data", "dataset") != pinned
    assert found["data"]["revision"] == pinned
    assert "notes.txt" not in found["data"]["files"]
    assert "commit of another one is pinned" in other["error"]


def test_a_push_in_between_changes_nothing(hub, tmp_path):
    """The revision is resolved once: what is listed and fetched afterwards is of that commit."""
    hub.upload("lab/moving", "model", {"README.md": CARD, "vectors/a.txt": b"first\n"})
    first = hub.head("lab/moving", "model")
    pushed = []

    def push(_request):
        pushed.append(hub.upload("lab/moving", "model", {"vectors/a.txt": b"second\n", "vectors/b.txt": b"new\n"}))

    hub.before("GET", "/tree/", push)
    [opened] = open_targets(hub.environment(tmp_path / "home"), "lab/moving")

    assert hub.head("lab/moving", "model") == pushed[0] != first
    assert opened["model"]["revision"] == first
    assert (Path(opened["model"]["folder"]) / "vectors/a.txt").read_bytes() == b"first\n"
    assert "vectors/b.txt" not in opened["model"]["files"]


def test_only_what_is_needed_is_fetched(hub, tmp_path):
    files = large_files()
    large = {path: content for path, content in files.items() if len(content) > 2**20}
    more = {"weights/model.safetensors": bytes(2**20 + 1), "picture.png": bytes(2**21)}
    small = {"README.md": CARD, "saes/big/layers.3/cfg.json": files["saes/big/layers.3/cfg.json"]}
    hub.upload("lab/big", "model", {**large, **more, **small})
    env = hub.environment(tmp_path / "home")
    [opened] = open_targets(env, "lab/big", validate=True)
    digests = {path: [len(content), hashlib.sha256(content).hexdigest()] for path, content in (large | more).items()}

    assert set(opened["model"]["files"]) == {*small, ".gitattributes"}
    assert opened["model"]["left"] == digests
    unread = {each["file"]: each for each in opened["findings"] if each["rule"] == "values-not-read"}
    assert set(unread) == {f"lab/big/{path}" for path in digests}
    assert {each["severity"] for each in unread.values()} == {"note"}
    assert all("--download" in each["fix"] for each in unread.values())
    sent = [each for each in hub.requests if each.host == "storage" and each.method == "GET"]
    headers = [each for each in sent if "range" in each.headers]
    # Of an SAE and a map the length and the header are asked for, and not one byte of a tensor.
    wanted = [content[: 8 + int.from_bytes(content[:8], "little")] for content in large.values()]
    assert sum(each.sent for each in headers) == sum(map(len, wanted))
    assert len(headers) == 2 * len(large)
    assert sum(each.sent for each in sent) < 2**18

    hub.requests.clear()
    [offline] = open_targets({**env, "HF_HUB_OFFLINE": "1"}, "lab/big", validate=True)
    assert offline == opened
    assert hub.requests == []

    [whole] = open_targets(env, "lab/big", selection="everything")
    assert whole["model"]["left"] == {}
    assert set(whole["model"]["files"]) == {*digests, *opened["model"]["files"]}


def test_a_file_that_was_left_is_checked_as_far_as_its_header_goes(hub, tmp_path):
    files = large_files()
    sae, other = "saes/big/layers.3/sae_weights.safetensors", "saes/odd/layers.3/sae_weights.safetensors"
    config = json.loads(files["saes/big/layers.3/cfg.json"])
    files[other] = files[sae]
    files["saes/odd/layers.3/cfg.json"] = json.dumps({**config, "d_sae": 2401}).encode()
    files["saes/cut/layers.3/cfg.json"] = files["saes/big/layers.3/cfg.json"]
    files["saes/cut/layers.3/sae_weights.safetensors"] = files[sae][:-1]
    files["transfer/garbage.safetensors"] = b"\xff" * (2**20 + 1)
    entries = [
        {"path": path, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "kind": kind_of(path)}
        for path, content in files.items()
    ]
    by_path = {entry["path"]: entry for entry in entries}
    by_path[sae]["sha256"] = "0" * 64
    by_path[other]["size"] += 1
    files["manifest.json"] = json.dumps({"schema": "steer-eval/manifest/1", "files": entries}).encode()
    hub.upload("lab/big", "model", {"README.md": CARD, **files})
    [opened] = open_targets(hub.environment(tmp_path / "home"), "lab/big", validate=True)

    told = {
        (each["rule"], each["file"].removeprefix("lab/big/"))
        for each in opened["findings"]
        if each["severity"] == "error"
    }
    assert told == {
        ("checksum", sae),
        ("manifest-size", "manifest.json"),
        ("file-refused", other),
        ("file-refused", "saes/cut/layers.3/sae_weights.safetensors"),
        ("file-refused", "transfer/garbage.safetensors"),
    }
    assert sum(each.sent for each in hub.requests if each.host == "storage") < 2**18


def test_of_a_study_to_be_tried_only_the_vectors_are_fetched(hub, tmp_path):
    wanted = ["config.json", "study.yaml", "vectors/a_L1_caa.pt", "vectors/a_L1_caa.safetensors"]
    for path in ("README.md", *wanted, "saes/sae.pt", "saes/a/layers.1/sae_weights.safetensors", "manifest.json"):
        hub.upload("lab/try", "model", {path: path.encode()})
    [opened] = open_targets(hub.environment(tmp_path / "home"), "lab/try", data="lab/try", selection="vectors")

    [folder] = (tmp_path / "home").rglob("models--lab--try/snapshots/*")
    assert "study.yaml" in opened["error"], "what stands in it here is no study"
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == wanted


def test_a_damaged_file_is_named(hub, tmp_path):
    put_study(hub, tmp_path)
    [vector] = [path for path in hub.files("lab/persona", "model", "main") if path.endswith("L3_caa.safetensors")]
    good = hub.files("lab/persona", "model", "main")[vector]
    hub.corrupt("lab/persona", "model", vector)
    env = hub.environment(tmp_path / "home")
    expected = hashlib.sha256(good).hexdigest()
    observed = hashlib.sha256(good[:-1] + bytes([good[-1] ^ 0xFF])).hexdigest()
    for answer in open_targets(env, "lab/persona", "lab/persona"):
        assert vector in answer["error"]
        assert expected in answer["error"]
        assert observed in answer["error"]
        assert "push it again" in answer["fix"]

    hub.corrupt("lab/persona", "model", vector)
    [mended] = open_targets(env, "lab/persona")
    assert vector in mended["model"]["files"], "the damaged copy was not kept"


def test_a_file_that_was_cut_short_on_the_server_is_named(hub, tmp_path):
    put_study(hub, tmp_path / "source")
    [vector] = [path for path in hub.files("lab/persona", "model", "main") if path.endswith("L3_caa.safetensors")]
    content = hub.files("lab/persona", "model", "main")[vector]
    stored = [path for path in Path(hub.root).rglob(hashlib.sha256(content).hexdigest()) if path.is_file()]
    for path in stored:
        path.chmod(0o644)
        path.write_bytes(content[:-4])
    [answer] = open_targets(hub.environment(tmp_path / "home"), "lab/persona")

    assert stored
    assert Path(vector).name in answer["error"]
    assert "again" in answer["fix"]


def test_a_cache_that_was_tampered_with_is_noticed(hub, tmp_path):
    put_study(hub, tmp_path)
    env = hub.environment(tmp_path / "home")
    [opened] = open_targets(env, "lab/persona")
    blob = (Path(opened["model"]["folder"]) / "README.md").resolve()
    blob.write_bytes(blob.read_bytes().replace(b"persona", b"Persona"))
    [offline] = open_targets({**env, "HF_HUB_OFFLINE": "1"}, "lab/persona")
    [again] = open_targets(env, "lab/persona")

    assert "README.md: the file that came is not the one" in offline["error"]
    assert again["model"] == opened["model"]


def test_a_repo_that_is_too_much_is_refused_before_anything_is_fetched(hub, tmp_path):
    hub.upload("lab/many", "model", {f"part-{index}.txt": b"x" for index in range(30)})
    hub.upload("lab/heavy", "model", {"README.md": CARD, "table.jsonl": bytes(3_000_000)})
    env = hub.environment(tmp_path / "home")
    many, heavy = open_targets(env, "lab/many", "lab/heavy", limits={"files": 20, "gigabytes": 0.002})

    assert "more than 20 files" in many["error"]
    assert "--max-files 200" in many["fix"]
    assert "0.0 GB would have to be fetched" in heavy["error"]
    assert "--max-download" in heavy["fix"]
    assert fetched(hub) == []


def test_a_path_that_leaves_the_repo_is_refused(hub, tmp_path):
    """Git stores such trees when it is asked to, and whoever reads them has to mind."""
    hub.upload("lab/evil", "model", {"README.md": CARD})
    git = hub.repository("lab/evil", "model").git
    [blob] = git.store([b"owned\n"])
    commits = []
    for name in ("..", ".", ".git", "a\\b"):
        inner = git.run("mktree", stdin=f"100644 blob {blob}\tevil.txt\n".encode()).decode().strip()
        tree = git.run("mktree", stdin=f"040000 tree {inner}\t{name}\n".encode()).decode().strip()
        commits.append(git.write_commit(tree, [], "evil", "eve"))
    answers = open_targets(hub.environment(tmp_path / "home"), *(f"lab/evil@{commit}" for commit in commits))

    assert all("lists a file that no repo can have" in answer["error"] for answer in answers)
    assert not list(tmp_path.rglob("evil.txt"))
    assert fetched(hub) == []


def test_a_link_of_git_is_never_followed(hub, tmp_path):
    """The Hub sends what a link says as a file's content; no link comes out of a snapshot but those of the cache."""
    (tmp_path / "secret.txt").write_text("secret")
    hub.upload("lab/link", "model", {"README.md": CARD})
    git = hub.repository("lab/link", "model").git
    card, link = git.store([CARD, str(tmp_path / "secret.txt").encode()])
    tree = git.run("mktree", stdin=f"100644 blob {card}\tREADME.md\n120000 blob {link}\tlink.txt\n".encode())
    commit = git.write_commit(tree.decode().strip(), [], "link", "eve")
    [answer] = open_targets(hub.environment(tmp_path / "home"), f"lab/link@{commit}", validate=True)

    place = Path(answer["model"]["folder"]) / "link.txt"
    assert place.read_text() == str(tmp_path / "secret.txt")
    assert place.resolve().parent.name == "blobs"
    assert [each["rule"] for each in answer["findings"]] == ["manifest-unusable"]
