"""Repos that tests put on the Hub on localhost, and a program that opens them in a process of its own.

The libraries read their environment when they are imported, so nothing here runs in the process of the tests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from hub_fixtures import run_python
from hub_server import HubServer
from studies import build

from steer_eval.formats.sae import TopKSae
from steer_eval.formats.saelens import config_file, config_of
from steer_eval.formats.transfer import TransferMap, write_transfer_map

OPEN = """
import json, sys
from steer_eval.errors import SteerEvalError
from steer_eval.hub import selection
from steer_eval.hub.limits import Limits, limits
from steer_eval.repository import open_target
from steer_eval.validate import validate

asked = json.loads(sys.argv[1])
limits.set(Limits(**asked["limits"]))

def described(repo):
    return repo and {
        "name": repo.name,
        "folder": str(repo.folder),
        "revision": repo.revision,
        "files": sorted(p.relative_to(repo.folder).as_posix() for p in repo.folder.rglob("*") if p.is_file()),
        "left": {path: [file.size, file.sha256] for path, file in repo.left.items()},
    }

def opened(target):
    try:
        found = open_target(target, asked["data"], selection=getattr(selection, asked["selection"]))
        findings = [f.to_json() for f in validate(found).findings] if asked["validate"] else []
    except SteerEvalError as error:
        return {"error": error.message, "fix": error.fix}
    return {"model": described(found.model), "data": described(found.data), "findings": findings}

print(json.dumps([opened(target) for target in asked["targets"]]))
"""


def open_targets(
    env: Mapping[str, str],
    *targets: str,
    data: str | None = None,
    selection: str = "without_weights",
    validate: bool = False,
    limits: Mapping[str, float] | None = None,
) -> Sequence[Any]:
    """What `open_target` gives for some targets, in one process."""
    asked = {"targets": targets, "data": data, "selection": selection, "validate": validate, "limits": limits or {}}
    answers: list[Any] = json.loads(run_python(OPEN, env, json.dumps(asked)))
    return answers


def put_study(hub: HubServer, folder: Path) -> None:
    """A whole synthetic study as `lab/persona` and `lab/persona-data`."""
    place = build(folder)
    hub.upload("lab/persona", "model", place.model)
    hub.upload("lab/persona-data", "dataset", place.data)


def large_files() -> dict[str, bytes]:
    """An SAE and a transfer map of more than a megabyte each, as files of a repo."""
    from safetensors.numpy import save

    random = np.random.default_rng(3)
    width, features = 64, 2400
    weights = {
        "W_enc": random.standard_normal((width, features), dtype=np.float32),
        "b_enc": np.zeros(features, np.float32),
        "W_dec": random.standard_normal((features, width), dtype=np.float32),
        "b_dec": np.zeros(width, np.float32),
    }
    # Nothing but the sizes is asked of the tensors for the settings.
    outline: Any = TopKSae(*weights.values(), k=32, layer=3, model="lab/big", provenance={})  # type: ignore[arg-type]
    square = np.linalg.qr(random.standard_normal((400, 400)))[0].astype(np.float32)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "map.safetensors"
        write_transfer_map(path, TransferMap(square, np.zeros(400, np.float32), square, 3, 2, 10.0))
        maps = path.read_bytes()
    return {
        "saes/big/layers.3/sae_weights.safetensors": save(weights),
        "saes/big/layers.3/cfg.json": config_file(config_of(outline)),
        "transfer/map_large_to_small.safetensors": maps,
    }


RUN = """
import json, sys
from click.testing import CliRunner
from steer_eval.cli.main import cli
from steer_eval.errors import SteerEvalError

def run(arguments):
    result = CliRunner().invoke(cli, arguments)
    error = result.exception
    if isinstance(error, SteerEvalError):
        return {"code": 2, "out": result.stdout, "error": error.message, "fix": error.fix}
    if error is not None and not isinstance(error, SystemExit):
        raise error
    return {"code": result.exit_code, "out": result.stdout, "err": result.stderr}

print(json.dumps([run(arguments) for arguments in json.loads(sys.argv[1])]))
"""


def run_commands(env: Mapping[str, str], *commands: Sequence[str]) -> list[Any]:
    """What several commands give, run one after another in one process, which imports PyTorch once."""
    answers: list[Any] = json.loads(run_python(RUN, env, json.dumps(commands), timeout=300))
    return answers
