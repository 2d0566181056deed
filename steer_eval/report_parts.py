"""What a report page shows of SAEs and of transfers, as plain values.

Invariant: every statistic stands beside its null's 95th percentile, its p-value and the number of draws, as the
diagnostics have them. Of a stranger's SAE only what satisfies the schema of qualities is shown as its quality.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from steer_eval.errors import FormatError
from steer_eval.formats.schema import check
from steer_eval.formats.strict_json import parse
from steer_eval.inventory import Inventory
from steer_eval.report_cells import Naming
from steer_eval.rules.vector_files import name_parts

OF_STREAMS = "the two streams"
"""What a statistic is of that is of no map."""
_OF_MAPS = {"held_out_r2": "held-out R²", "cosine_to_native": "cosine to native", "retrieval": "retrieval"}
_OF_PAIRS = {"debiased_cka": "debiased CKA", "svcca": "SVCCA"}


@dataclass(frozen=True)
class Sae:
    """An SAE, or what a re-run measured of one.

    Args:
        identity: Its anchor in the page.
        source: Where it was measured: empty, `published data` or `re-run`.
        file: The file.
        model: What its model is called.
        layer: Index of the decoder block whose output is encoded, from 0.
        features: Number of features, where known.
        k: Features that may fire per token, where known.
        quality: How good it is, by the names of `schemas/sae_quality.schema.json`; empty where that is not known.
    """

    identity: str
    source: str
    file: str
    model: str
    layer: int
    features: int | None
    k: int | None
    quality: Mapping[str, float]


@dataclass(frozen=True)
class Statistic:
    """One number of a transfer beside its null.

    Args:
        of: The kind of map, or `OF_STREAMS`.
        name: What is measured.
        value: The value.
        null_95: 95th percentile of the null.
        p: Share of draws, the observed one among them, that reach the value.
        draws: Draws of the null.
    """

    of: str
    name: str
    value: float
    null_95: float
    p: float
    draws: int


@dataclass(frozen=True)
class Protocol:
    """What was measured of a transfer under one protocol.

    Args:
        name: The protocol.
        rows: Paired rows that maps were fitted on.
        texts: Texts that they are of.
        statistics: The numbers, those of the streams first, then by kind of map.
        norms: Norm of the carried vector over that of the native one, by kind of map.
    """

    name: str
    rows: int
    texts: int
    statistics: tuple[Statistic, ...]
    norms: Mapping[str, float]


@dataclass(frozen=True)
class Transfer:
    """A transfer.

    Args:
        identity: Its anchor in the page.
        title: From where to where, and where it was measured.
        file: The file.
        pairs: Contrast pairs that were carried.
        split_half_cosine: Cosine of two halves of the target's own pairs, where known.
        protocols: What was measured, under the protocol that was planned first.
    """

    identity: str
    title: str
    file: str
    pairs: int
    split_half_cosine: float | None
    protocols: tuple[Protocol, ...]


def saes_of(source: str, inventory: Inventory, naming: Naming) -> Iterator[Sae]:
    """The SAEs of some repos, and the qualities that a run measured of SAEs.

    Args:
        source: Where they were measured.
        inventory: What the repos hold.
        naming: Names what has an anchor.
    """
    for artifact in inventory.of("sae", "sae_pt"):
        sae, identity = artifact.value, naming.anchor(f"sae-{artifact.path}")
        quality = _recorded(sae.provenance.get("quality"), artifact.path)
        yield Sae(identity, source, artifact.path, sae.model, sae.layer, sae.d_sae, sae.k, quality)
    for artifact in inventory.of("sae_quality"):
        parts, identity = name_parts(artifact.name), naming.anchor(f"sae-{artifact.path}")
        if parts:
            yield Sae(identity, source, artifact.path, *parts, None, None, _figures(artifact.value))


def _recorded(text: str | None, file: str) -> Mapping[str, float]:
    """The quality that an SAE records of itself; empty where it records none, or something else."""
    if text is None:
        return {}
    try:
        value: Any = parse(text, file, "quality")
        check(value, "sae_quality", file=file)
    except FormatError:
        return {}
    return _figures(value)


def _figures(quality: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in quality.items() if isinstance(value, int | float)}


def transfers_of(source: str, inventory: Inventory, naming: Naming) -> Iterator[Transfer]:
    """The transfers of some repos that were diagnosed.

    Args:
        source: Where they were measured.
        inventory: What the repos hold.
        naming: Names what has an anchor.
    """
    for artifact in inventory.of("transfer_diagnostics"):
        document = artifact.value
        first, second = (f"{document[end]['model']} layer {document[end]['layer']}" for end in ("source", "target"))
        title = f"{first} to {second}" + (f", {source}" if source else "")
        planned = document["plan"].get("protocol")
        protocols = sorted(document["protocols"].items(), key=lambda each: each[0] != planned)
        yield Transfer(
            naming.anchor(f"transfer-{title}"),
            title,
            artifact.path,
            document["pairs"]["n"],
            document["target"]["split_half_cosine"],
            tuple(_protocol(name, measured) for name, measured in protocols),
        )


def _protocol(name: str, measured: Mapping[str, Any]) -> Protocol:
    maps = measured["maps"]
    statistics = [_statistic(OF_STREAMS, shown, measured[key]) for key, shown in _OF_PAIRS.items()]
    statistics += [_statistic(kind, shown, its[key]) for kind, its in maps.items() for key, shown in _OF_MAPS.items()]
    norms = {kind: its["carried_norm_share"] for kind, its in maps.items()}
    return Protocol(name, measured["n_rows"], measured["n_texts"], tuple(statistics), norms)


def _statistic(of: str, name: str, tested: Mapping[str, Any]) -> Statistic:
    return Statistic(of, name, tested["value"], tested["null_95"], tested["p"], tested["draws"])
