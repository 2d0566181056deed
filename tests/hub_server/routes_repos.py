"""Accounts, and repositories as wholes: created, described, listed, changed, deleted.

Invariant: what a repository's card says is read from its README.md, at the revision that is asked for.
"""

from __future__ import annotations

from typing import Any

import yaml

from .git import Blob
from .repositories import Repository, moment
from .web import KINDS, Refusal, Request, Routes, answer

ROUTES = Routes()


@ROUTES.add("GET", "api/whoami-v2")
def whoami(hub: Any, request: Request) -> Any:
    caller = hub.accounts.member(request)
    orgs = [{"type": "org", "id": org, "name": org, "roleInOrg": "contributor"} for org in caller.orgs]
    token = {"displayName": "test", "role": caller.role}
    return {
        **{"type": "user", "id": f"user-{caller.user}", "name": caller.user, "fullname": caller.user, "orgs": orgs},
        "auth": {"type": "access_token", "accessToken": token},
    }


@ROUTES.add("POST", "oauth/token")
def exchange(hub: Any, request: Request) -> Any:
    asked = request.json()
    if asked.get("grant_type") != "urn:ietf:params:oauth:grant-type:token-exchange":
        raise Refusal(400, f"grant_type {asked.get('grant_type')!r} is not supported", error="unsupported_grant_type")
    token = hub.accounts.exchange(asked.get("subject_token"), asked.get("resource"))
    return {"access_token": token, "token_type": "bearer", "expires_in": 3600}


@ROUTES.add("POST", "api/validate-yaml")
def validate_yaml(hub: Any, request: Request) -> Any:
    """The part of the Hub's check that needs no list of known names."""
    try:
        metadata = front_matter(request.json()["content"])
    except yaml.YAMLError as error:
        return answer({"errors": [{"message": f"YAML metadata is not valid: {error}"}], "warnings": []}, 400)
    if not metadata:
        return {"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]}
    if not isinstance(metadata, dict):
        return answer({"errors": [{"message": "YAML metadata must be a mapping"}], "warnings": []}, 400)
    return {"errors": [], "warnings": []}


@ROUTES.add("POST", "api/repos/create")
def create(hub: Any, request: Request) -> Any:
    asked = request.json()
    caller = hub.accounts.member(request)
    if caller.resource is not None:
        raise Refusal(401, "This token cannot create repositories")
    kind, namespace = asked.get("type") or "model", asked.get("organization") or caller.user
    if kind not in KINDS:
        raise Refusal(501, f"the test server has no repositories of type {kind!r}")
    hub.accounts.writer(request, namespace)
    repo_id = f"{namespace}/{asked['name']}"
    with hub.repositories.lock:
        existing = hub.repositories.get(kind, repo_id)
        if existing is not None:
            url = f"{hub.url}/{existing.prefix}"
            raise Refusal(409, f"You already created this {kind} repo", url=url)
        repo = hub.repositories.create(kind, repo_id, caller.user, private=asked.get("visibility") == "private")
    return {"url": f"{hub.url}/{repo.prefix}", "name": repo.id, "id": f"{kind}-{repo.id}"}


@ROUTES.add("DELETE", "api/repos/delete")
def delete(hub: Any, request: Request) -> Any:
    asked = request.json()
    namespace = asked.get("organization") or hub.accounts.member(request).user
    repo, _ = hub.repositories.writable(request, asked.get("type") or "model", f"{namespace}/{asked['name']}")
    hub.repositories.delete(repo)
    return {}


@ROUTES.add("POST", "api/repos/move")
def move(hub: Any, request: Request) -> Any:
    asked = request.json()
    kind = asked.get("type") or "model"
    repo, _ = hub.repositories.writable(request, kind, asked["fromRepo"])
    hub.accounts.writer(request, asked["toRepo"].partition("/")[0])
    if hub.repositories.get(kind, asked["toRepo"]):
        raise Refusal(409, f"{asked['toRepo']} exists")
    hub.repositories.move(repo, asked["toRepo"])
    return {}


@ROUTES.add("PUT", "api/{repo}/settings")
def settings(hub: Any, request: Request, kind: str, repo_id: str) -> Any:
    repo, _ = hub.repositories.writable(request, kind, repo_id)
    for name, value in request.json().items():
        if name == "visibility" and value in ("public", "private"):
            repo.private = value == "private"
        elif name == "private" and isinstance(value, bool):
            repo.private = value
        elif name == "gated" and value in (False, "auto", "manual"):
            repo.gated = value
        else:
            raise Refusal(400, f"the setting {name}={value!r} is not known")
    return {}


@ROUTES.add("GET", "api/{repo}/auth-check")
def auth_check(hub: Any, request: Request, kind: str, repo_id: str) -> Any:
    hub.repositories.with_files(request, kind, repo_id)
    return {}


@ROUTES.add("GET", "api/{repo}/auth-check/write")
def auth_check_write(hub: Any, request: Request, kind: str, repo_id: str) -> Any:
    hub.repositories.writable(request, kind, repo_id)
    return {}


@ROUTES.add("GET", "api/{repo}")
def info(hub: Any, request: Request, kind: str, repo_id: str) -> Any:
    return info_at(hub, request, kind, repo_id, "main")


@ROUTES.add("GET", "api/{repo}/revision/{revision}")
def info_at(hub: Any, request: Request, kind: str, repo_id: str, revision: str) -> Any:
    repo = hub.repositories.readable(request, kind, repo_id)
    described = describe(repo, revision, blobs=request.flag("blobs"))
    if request.flag("securityStatus"):
        described["securityRepoStatus"] = {"scansDone": True, "filesWithIssues": []}
    if wanted := request.query.get("expand"):
        return {name: value for name, value in described.items() if name in ("_id", "id", *wanted)}
    return described


@ROUTES.add("GET", "api/models")
def models(hub: Any, request: Request) -> Any:
    return listed(hub, request, "model")


@ROUTES.add("GET", "api/datasets")
def datasets(hub: Any, request: Request) -> Any:
    return listed(hub, request, "dataset")


def listed(hub: Any, request: Request, kind: str) -> list[dict[str, Any]]:
    """The repositories that the caller sees, by author, part of the name and tags."""
    caller = hub.accounts.caller(request)
    found = [repo for repo in hub.repositories if repo.kind == kind and hub.repositories.sees(caller, repo)]
    if author := request.option("author"):
        found = [repo for repo in found if repo.namespace == author]
    if search := request.option("search"):
        found = [repo for repo in found if search.lower() in repo.id.lower()]
    described = [describe(repo, "main", blobs=False) for repo in found]
    tags = set(request.query.get("filter", []))
    described = [row for row in described if tags <= set(row["tags"])]
    return described[: int(request.option("limit") or len(described))]


def front_matter(text: str) -> Any:
    """The YAML between the first two lines of dashes."""
    text = text.replace("\r\n", "\n").lstrip("\ufeff")
    if not text.startswith("---\n") or "\n---" not in text[3:]:
        return None
    return yaml.safe_load(text[4:].partition("\n---")[0])


def describe(repo: Repository, revision: str, *, blobs: bool) -> dict[str, Any]:
    """What the Hub tells of a repository at a revision."""
    commit = repo.commit_of(revision)
    files = repo.git.blobs(commit)
    last = repo.git.history(commit, limit=1)[0]
    card = _card(repo, files)
    described = {
        **{"_id": f"{repo.kind}-{repo.id}", "id": repo.id, "author": repo.namespace, "sha": commit},
        **{"lastModified": moment(last.date), "createdAt": repo.created_at, "private": repo.private},
        **{"gated": repo.gated, "disabled": False, "downloads": 0, "likes": 0, "tags": _tags(card)},
        "siblings": [_sibling(blob, blobs=blobs) for blob in files.values()],
        "usedStorage": sum(blob.pointer.size if blob.pointer else blob.size for blob in files.values()),
    }
    if card:
        described["cardData"] = card
    if repo.kind == "model":
        described["modelId"] = repo.id
        described |= {key: card[key] for key in ("library_name", "pipeline_tag") if key in card}
    return described


def _card(repo: Repository, files: dict[str, Blob]) -> dict[str, Any]:
    if "README.md" not in files:
        return {}
    try:
        card = front_matter(repo.read(files["README.md"]).decode(errors="replace"))
    except yaml.YAMLError:
        return {}
    return card if isinstance(card, dict) else {}


def _tags(card: dict[str, Any]) -> list[str]:
    tags = [str(tag) for tag in card.get("tags") or []]
    for key, prefix in (("library_name", ""), ("pipeline_tag", ""), ("license", "license:"), ("datasets", "dataset:")):
        values = card.get(key) or []
        tags += [f"{prefix}{value}" for value in (values if isinstance(values, list) else [values])]
    bases = card.get("base_model") or []
    for base in bases if isinstance(bases, list) else [bases]:
        tags.append(f"base_model:{base}")
        if relation := card.get("base_model_relation"):
            tags.append(f"base_model:{relation}:{base}")
    return list(dict.fromkeys(tags))


def _sibling(blob: Blob, *, blobs: bool) -> dict[str, Any]:
    sibling: dict[str, Any] = {"rfilename": blob.path}
    if blobs:
        sibling |= {"blobId": blob.oid, "size": blob.pointer.size if blob.pointer else blob.size}
        if blob.pointer:
            lfs = {"sha256": blob.pointer.sha256, "size": blob.pointer.size, "pointerSize": blob.size}
            sibling["lfs"] = lfs
    return sibling
