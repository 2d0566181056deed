"""Whatever goes wrong on the way to the Hub has a message and a fix of its own, and ends with exit code 2."""

from __future__ import annotations

import socket
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from hub_fixtures import run_cli
from hub_repos import open_targets

CARD = {"README.md": b"---\nlicense: mit\n---\n# A repo\n"}


@pytest.fixture
def lab(hub):
    """Repos of `lab`, and `eve`, who has nothing to do with them."""
    for name in ("lab/public", "lab/private", "lab/gated"):
        hub.upload(name, "model", CARD)
    hub.upload("lab/only-data", "dataset", CARD)
    hub.set_private("lab/private", "model")
    hub.set_gated("lab/gated", "model", gated="manual")
    return hub


def test_each_cause_is_told_apart(lab, tmp_path):
    eve = lab.add_user("eve")
    asked = {
        eve: ("lab/absent", "lab/private", "lab/gated", "lab/public@v9", "lab/only-data"),
        None: ("lab/absent",),
        "hf_notatokenofthishub": ("lab/public",),
    }
    answers = [
        answer
        for token, targets in asked.items()
        for answer in open_targets(lab.environment(tmp_path / "home", token=token), *targets)
    ]
    messages = [answer["error"] for answer in answers]
    absent, private, gated, revision, kind, nobody, token = messages

    assert "there is no model repo lab/absent" in absent
    assert "this token may not read it" in absent
    assert "there is no model repo lab/private, or it is private" in private
    assert "lab/gated" in gated
    assert "is gated" in gated
    assert f"{lab.url}/lab/gated" in answers[2]["fix"], "where the terms are"
    assert "lab/public@v9 has no such revision" in revision
    assert kind == "lab/only-data is a dataset repo, not a model repo"
    assert "hf://datasets/lab/only-data" in answers[4]["fix"]
    assert "--data" in answers[4]["fix"]
    assert "nobody is logged in" in nobody
    assert "hf auth login" in answers[5]["fix"]
    assert "does not take this token" in token
    assert "HF_TOKEN" in answers[6]["fix"]
    assert len({message.replace("private", "absent") for message in messages}) == len(messages) - 1
    assert not any(secret in str(answers) for secret in (eve, "hf_notatokenofthishub"))


def test_the_command_ends_with_2_and_says_how_to_go_on(lab, tmp_path):
    result = run_cli("validate", "lab/absent", env=lab.environment(tmp_path / "home"), cwd=tmp_path)

    assert (result.returncode, result.stdout) == (2, "")
    assert "Error: there is no model repo lab/absent" in result.stderr
    assert "To mend it:" in result.stderr
    assert "Traceback" not in result.stderr


def test_rights_open_the_door(lab, tmp_path):
    ada = lab.add_user("ada", orgs=("lab",))
    lab.grant("lab/gated", "model", "ada")
    opened = open_targets(lab.environment(tmp_path / "home", token=ada), "lab/private", "lab/gated")

    assert [each["model"]["revision"] for each in opened] == [
        lab.head("lab/private", "model"),
        lab.head("lab/gated", "model"),
    ]


def test_the_data_repo_is_told_as_well(lab, tmp_path):
    env = lab.environment(tmp_path / "home")
    [absent] = open_targets(env, "lab/public", data="lab/public-data")
    [other] = open_targets(env, "lab/public", data="lab/gated")

    assert "there is no dataset repo lab/public-data" in absent["error"]
    assert other["error"] == "lab/gated is a model repo, not a dataset repo"
    assert "hf://lab/gated" in other["fix"]


def test_answers_that_are_none(lab, tmp_path):
    said = {403: "no rights", 429: "no more requests", 501: "out of order (501)", 418: "(418)"}
    for status in said:
        lab.refuse("GET", f"/api/models/lab/status-{status}", status, "so it is")
    answers = open_targets(lab.environment(tmp_path / "home"), *(f"lab/status-{status}" for status in said))

    for words, answer in zip(said.values(), answers, strict=True):
        assert words in answer["error"]
        assert "so it is" in answer["error"]
        assert answer["fix"]


def test_no_network(hub, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    env = hub.environment(tmp_path / "home")
    [nobody] = open_targets({**env, "HF_ENDPOINT": endpoint}, "lab/public")
    [offline] = open_targets({**env, "HF_HUB_OFFLINE": "1"}, "lab/public")

    assert f"no answer from {endpoint}" in nobody["error"]
    assert "HF_HUB_OFFLINE" in nobody["fix"]
    assert "not in the cache" in offline["error"]
    assert "without HF_HUB_OFFLINE" in offline["fix"]
    assert hub.requests == []


@pytest.mark.parametrize("endpoint", ["nonsense", "http://[bad", "http://127.0.0.1:port"])
def test_an_endpoint_that_is_none(hub, tmp_path, endpoint):
    env = hub.environment(tmp_path / "home")
    [answer] = open_targets({**env, "HF_ENDPOINT": endpoint}, "lab/public")

    assert answer["error"] == f"HF_ENDPOINT is no address of a Hub: {endpoint!r}"
    assert answer["fix"]


class _Site(BaseHTTPRequestHandler):
    """A web site like any other."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>Hello</html>")

    def log_message(self, *_arguments: object) -> None:
        pass


def test_a_site_that_is_no_hub(hub, tmp_path):
    with HTTPServer(("127.0.0.1", 0), _Site) as site:
        Thread(target=site.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{site.server_port}"
        [answer] = open_targets({**hub.environment(tmp_path / "home"), "HF_ENDPOINT": endpoint}, "lab/public")
        site.shutdown()

    assert f"{endpoint} does not answer as a Hub" in answer["error"]
    assert "HF_ENDPOINT" in answer["fix"]
