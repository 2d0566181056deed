"""What a measurement was made on.

Invariant: two runs of one machine class are expected to agree to float32 rounding; between classes small differences
are drift, not contradiction.
"""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from steer_eval import __version__

_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy")


@dataclass(frozen=True)
class Environment:
    """Machine class and versions of one measurement.

    Args:
        machine: Architecture and vector instruction set, for example `x86_64 AVX512`.
        device: `cpu`, `cuda` or `mps`.
        dtype: Precision of the forward passes.
        threads: Threads that the kernels used.
        versions: Package versions.
    """

    machine: str
    device: str
    dtype: str
    threads: int
    versions: dict[str, str]

    @property
    def machine_class(self) -> str:
        """What must agree for two runs to be compared text by text."""
        torch_minor = ".".join(self.versions.get("torch", "").split("+")[0].split(".")[:2])
        return f"{self.machine} {self.device} {self.dtype} torch-{torch_minor}"

    def to_json(self) -> dict[str, Any]:
        """The environment as a JSON object."""
        return {**asdict(self), "machine_class": self.machine_class}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Environment:
        """The environment that `to_json` wrote."""
        return cls(value["machine"], value["device"], value["dtype"], value["threads"], dict(value["versions"]))


def current(*, device: str, dtype: str) -> Environment:
    """The environment of this process."""
    import torch

    versions = {"steer-eval": __version__, **{name: metadata.version(name) for name in _PACKAGES}}
    machine = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return Environment(machine, device, dtype, torch.get_num_threads(), versions)
