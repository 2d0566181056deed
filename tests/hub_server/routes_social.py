"""Discussions, pull requests and collections.

Invariant: a merge is git's own three-way merge, and refused where git finds a conflict.
"""

from __future__ import annotations

import re
import secrets
from typing import Any

from .git import ZERO, StaleRefError
from .repositories import MAIN, STALE, Discussion, Repository, now
from .web import Refusal, Request, Routes

ROUTES = Routes()


@ROUTES.add("GET", "api/{repo}/discussions")
def discussions(hub: Any, request: Request, kind: str, repo_id: str) -> Any:
    """All in one page, newest first."""
    repo = hub.repositories.readable(request, kind, repo_id)
    found = [_described(repo, discussion) for discussion in reversed(repo.discussions.values())]
    for name, wanted in (("type", request.option("type")), ("author", request.option("author"))):
        if wanted and wanted != "all":
            found = [row for row in found if wanted == (_type(row) if name == "type" else row["author"]["name"])]
    if (status := request.option("status")) not in (None, "all"):
        found = [row for row in found if (row["status"] in ("open", "draft")) == (status == "open")]
    return {"discussions": found, "count": len(found), "start": 0}


def _type(row: dict[str, Any]) -> str:
    return "pull_request" if row["isPullRequest"] else "discussion"


@ROUTES.add("POST", "api/{repo}/discussions")
def open_discussion(hub: Any, request: Request, kind: str, repo_id: str) -> Any:
    repo, user = hub.repositories.proposable(request, kind, repo_id)
    asked = request.json()
    pull_request = bool(asked.get("pullRequest"))
    with repo.lock:
        status = "draft" if pull_request else "open"
        discussion = repo.open_discussion(asked["title"], user, pull_request=pull_request, status=status)
        if pull_request:
            repo.git.move(discussion.ref, repo.commit_of("main"), ZERO)
        _event(discussion, user, "comment", _comment(asked.get("description") or ""))
    return {"num": discussion.num}


@ROUTES.add("GET", "api/{repo}/discussions/{num}")
def discussion(hub: Any, request: Request, kind: str, repo_id: str, num: str) -> Any:
    repo = hub.repositories.readable(request, kind, repo_id)
    found = repo.discussion(int(num))
    described = {**_described(repo, found), "events": found.events}
    if not found.is_pull_request:
        return {**described, "changes": None, "filesWithConflicts": None}
    head, main = repo.commit_of(found.ref), repo.commit_of("main")
    _tree, conflicts = repo.git.merged_tree(main, head)
    described["changes"] = {"base": MAIN, "mergeCommitId": found.merge_commit}
    described["filesWithConflicts"] = [] if found.merge_commit else conflicts
    if request.flag("diff"):
        base = repo.git.run("merge-base", main, head).decode().strip()
        described["diff"] = repo.git.run("diff", base, head).decode(errors="replace")
    return described


@ROUTES.add("POST", "api/{repo}/discussions/{num}/comment")
def comment(hub: Any, request: Request, kind: str, repo_id: str, num: str) -> Any:
    repo, user = hub.repositories.proposable(request, kind, repo_id)
    return {"newMessage": _event(repo.discussion(int(num)), user, "comment", _comment(request.json()["comment"]))}


@ROUTES.add("POST", "api/{repo}/discussions/{num}/status")
def status(hub: Any, request: Request, kind: str, repo_id: str, num: str) -> Any:
    found, user = _moderated(hub, request, kind, repo_id, num)
    found.status = request.json()["status"]
    return {"newStatus": _event(found, user, "status-change", {"status": found.status})}


@ROUTES.add("POST", "api/{repo}/discussions/{num}/title")
def title(hub: Any, request: Request, kind: str, repo_id: str, num: str) -> Any:
    found, user = _moderated(hub, request, kind, repo_id, num)
    old, found.title = found.title, request.json()["title"]
    return {"newTitle": _event(found, user, "title-change", {"from": old, "to": found.title})}


@ROUTES.add("POST", "api/{repo}/discussions/{num}/merge")
def merge(hub: Any, request: Request, kind: str, repo_id: str, num: str) -> Any:
    repo, user = hub.repositories.writable(request, kind, repo_id)
    with repo.lock:
        found = repo.discussion(int(num))
        if not found.is_pull_request or found.status in ("closed", "merged"):
            raise Refusal(400, f"discussion {num} is no open pull request")
        main, head = repo.commit_of("main"), repo.commit_of(found.ref)
        tree, conflicts = repo.git.merged_tree(main, head)
        if tree is None:
            raise Refusal(409, f"the pull request has conflicts: {', '.join(conflicts)}")
        note = request.json().get("comment") or ""
        message = f"{found.title} (#{found.num})\n\n{note}".strip()
        merged = repo.git.write_commit(tree, [main, head], message, user)
        try:
            repo.git.move(MAIN, merged, main)
        except StaleRefError as error:
            raise Refusal(412, STALE) from error
        found.status, found.merge_commit = "merged", merged
        _event(found, user, "status-change", {"status": "merged"})
    return {}


def _moderated(hub: Any, request: Request, kind: str, repo_id: str, num: str) -> tuple[Discussion, str]:
    """Only its author and the repository's owners change a discussion."""
    repo, user = hub.repositories.proposable(request, kind, repo_id)
    found = repo.discussion(int(num))
    if found.author != user:
        hub.repositories.writable(request, kind, repo_id)
    return found, user


def _comment(text: str) -> dict[str, Any]:
    return {"edited": False, "hidden": False, "latest": {"raw": text}}


def _event(discussion: Discussion, user: str, kind: str, data: dict[str, Any]) -> dict[str, Any]:
    event = {"id": secrets.token_hex(12), "type": kind, "createdAt": now(), "author": {"name": user}, "data": data}
    discussion.events.append(event)
    return event


def _described(repo: Repository, discussion: Discussion) -> dict[str, Any]:
    return {
        **{"num": discussion.num, "title": discussion.title, "status": discussion.status},
        **{"isPullRequest": discussion.is_pull_request, "createdAt": discussion.created_at},
        **{"author": {"name": discussion.author}, "repo": {"name": repo.id, "type": repo.kind}},
    }


@ROUTES.add("POST", "api/collections")
def create_collection(hub: Any, request: Request) -> Any:
    asked = request.json()
    hub.accounts.writer(request, asked["namespace"])
    plain = re.sub(r"[^a-z0-9]+", "-", asked["title"].lower()).strip("-")
    for slug, collection in hub.collections.items():
        if (collection["owner"]["name"], collection["title"]) == (asked["namespace"], asked["title"]):
            raise Refusal(409, "You already have a collection with this title", slug=slug)
    collection = {
        **{"slug": f"{asked['namespace']}/{plain}-{secrets.token_hex(12)}", "title": asked["title"]},
        **{"description": asked.get("description"), "owner": {"name": asked["namespace"], "type": "user"}},
        **{"items": [], "lastUpdated": now(), "position": 0, "private": bool(asked.get("private"))},
        **{"theme": "green", "upvotes": 0},
    }
    hub.collections[collection["slug"]] = collection
    return collection


@ROUTES.add("GET", "api/collections")
def collections(hub: Any, request: Request) -> Any:
    owners = request.query.get("owner", [])
    return [
        {name: value for name, value in row.items() if name != "position"}
        for row in hub.collections.values()
        if _visible(hub, request, row) and (not owners or row["owner"]["name"] in owners)
    ]


@ROUTES.add("GET", "api/collections/{owner}/{slug}")
def collection(hub: Any, request: Request, owner: str, slug: str) -> Any:
    found = hub.collections.get(f"{owner}/{slug}")
    if found is None or not _visible(hub, request, found):
        raise Refusal(404, "Collection not found")
    return found


def _visible(hub: Any, request: Request, collection: dict[str, Any]) -> bool:
    caller = hub.accounts.caller(request)
    return not collection["private"] or (caller is not None and caller.owns(collection["owner"]["name"]))


@ROUTES.add("DELETE", "api/collections/{owner}/{slug}")
def delete_collection(hub: Any, request: Request, owner: str, slug: str) -> Any:
    hub.accounts.writer(request, owner)
    collection(hub, request, owner, slug)
    del hub.collections[f"{owner}/{slug}"]
    return {}


@ROUTES.add("POST", "api/collections/{owner}/{slug}/items")
def add_item(hub: Any, request: Request, owner: str, slug: str) -> Any:
    hub.accounts.writer(request, owner)
    found = collection(hub, request, owner, slug)
    asked = request.json()
    kind, item_id = asked["item"]["type"], asked["item"]["id"]
    if kind not in ("model", "dataset"):
        raise Refusal(501, f"the test server's collections hold no item of type {kind!r}")
    hub.repositories.readable(request, kind, item_id)
    if any((item["type"], item["id"]) == (kind, item_id) for item in found["items"]):
        raise Refusal(409, "This item is already in the collection")
    note = {"note": {"text": asked["note"]}} if asked.get("note") else {}
    item = {"_id": secrets.token_hex(12), "id": item_id, "type": kind, "position": len(found["items"]), **note}
    found["items"].append(item)
    found["lastUpdated"] = now()
    return found


@ROUTES.add("DELETE", "api/collections/{owner}/{slug}/items/{item}")
def remove_item(hub: Any, request: Request, owner: str, slug: str, item: str) -> Any:
    hub.accounts.writer(request, owner)
    found = collection(hub, request, owner, slug)
    found["items"] = [row for row in found["items"] if row["_id"] != item]
    return {}
