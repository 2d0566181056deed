"""What a study says of its transfers: from where to where, on which text, how the maps are fitted.

Invariant: a plan is a value that satisfies `schemas/study.schema.json`; with weights and a text it decides the maps,
and with the published vectors what is carried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from steer_eval.sae.plan import text_source
from steer_eval.sae.text import TextSource

FOLDER = "transfer"
CARRIED_FOLDER = "vectors/transferred"
PLAIN = "plain"
"""The study's own protocol, which is there to be compared with."""


@dataclass(frozen=True)
class End:
    """One end of a transfer.

    Args:
        model: Name of the model in the study.
        layer: Index of the decoder block whose output is meant, from 0; the model has a vector there.
    """

    model: str
    layer: int


@dataclass(frozen=True)
class TransferPlan:
    """One transfer.

    Args:
        source: Where the vector is from.
        target: Where it is carried to.
        text: What the maps are fitted on.
        coefficient: With which carried vectors are tried.
        protocol: Name of the protocol.
        words: How much of the text, in words.
        seed: Decides folds, draws and the random map.
        draws: Draws of a null for which maps are fitted again.
    """

    source: End
    target: End
    text: TextSource
    coefficient: float
    protocol: str = "recommended"
    words: int = 6000
    seed: int = 0
    draws: int = 40

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"{self.source.model}_L{self.source.layer}_to_{self.target.model}_L{self.target.layer}"

    @property
    def protocols(self) -> tuple[str, ...]:
        """The protocols under which a plan is diagnosed: its own, and the study's for comparison."""
        return tuple(dict.fromkeys((self.protocol, PLAIN)))

    @property
    def map_file(self) -> str:
        """Path of the maps inside a model repo."""
        return f"{FOLDER}/{self.name}.safetensors"

    @property
    def vectors_file(self) -> str:
        """Path of the carried vectors, beside the native one, inside a model repo."""
        return f"{FOLDER}/{self.name}_vectors.safetensors"

    @property
    def diagnostics_file(self) -> str:
        """Path of the diagnostics inside a model repo."""
        return f"{FOLDER}/{self.name}_diagnostics.json"

    def vector_file(self, kind: str) -> str:
        """Path of one carried vector, as a steering vector of the target, inside a model repo.

        No layer stands in it as in a native vector's name, so that nobody takes the one for the other.
        """
        return f"{CARRIED_FOLDER}/{self.name.replace('_L', '-L')}-{kind}.safetensors"

    def to_json(self) -> dict[str, Any]:
        """What decides the transfer, as a JSON object."""
        return {
            "source": asdict(self.source),
            "target": asdict(self.target),
            "text": {type(self.text).__name__: asdict(self.text)},
            "words": self.words,
            "protocol": self.protocol,
            "seed": self.seed,
        }


def transfer_plan(value: Mapping[str, Any]) -> TransferPlan:
    """A plan from its entry in `study.yaml`, which satisfies the schema."""
    ends = {"source": End(**value["source"]), "target": End(**value["target"])}
    coefficient = float(value["coefficient"])
    return TransferPlan(**{**value, **ends, "text": text_source(value["text"]), "coefficient": coefficient})
