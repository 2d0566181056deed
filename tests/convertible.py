"""A model repo in the layout of the study's own: PyTorch files, a card, and what else lies in a checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pt_files
import torch

CARD = """# Persona

| Path | Contents |
|---|---|
| `vectors/tiny_L{6,14}_caa.pt` | Vectors |
| `saes/tiny_L14_sae.pt` | SAE |

```python
path = hf_hub_download("lab/persona", "vectors/tiny_L6_caa.pt")
```
"""


def contents() -> dict[str, Any]:
    """What stands in the PyTorch files, by path."""
    transposed = pt_files.transfer_map(6, 4, seed=5)
    transposed["W"] = np.ascontiguousarray(transposed["W"].T)
    return {
        "vectors/tiny_L6_caa.pt": pt_files.caa(layer=6, seed=1),
        "vectors/tiny_L14_caa.pt": pt_files.caa(dtype=torch.float16, seed=2),
        "vectors/deep/tiny_L18_caa.pt": pt_files.caa(layer=18, dtype=torch.bfloat16, seed=3),
        "vectors/small_transferred_caa.pt": pt_files.transferred(),
        "vectors/transfer_map_large_to_small.pt": transposed,
        "saes/tiny_L14_sae.pt": pt_files.sae(),
        "saes/half_L14_sae.pt": pt_files.sae(dtype=torch.bfloat16, seed=7),
    }


BECOMES = {
    "vectors/tiny_L6_caa.pt": ["vectors/tiny_L6_caa.safetensors"],
    "vectors/tiny_L14_caa.pt": ["vectors/tiny_L14_caa.safetensors"],
    "vectors/deep/tiny_L18_caa.pt": ["vectors/deep/tiny_L18_caa.safetensors"],
    "vectors/small_transferred_caa.pt": ["transfer/small_transferred_caa.safetensors"],
    "vectors/transfer_map_large_to_small.pt": ["transfer/transfer_map_large_to_small.safetensors"],
    "saes/tiny_L14_sae.pt": ["saes/tiny/layers.14/cfg.json", "saes/tiny/layers.14/sae_weights.safetensors"],
    "saes/half_L14_sae.pt": ["saes/half/layers.14/cfg.json", "saes/half/layers.14/sae_weights.safetensors"],
}
COPIED = [".gitattributes", "README.md", "notes/run.sh", "saes/tiny_L14_features.json"]


def build(folder: Path) -> Path:
    """Write the repo."""
    for path, content in contents().items():
        pt_files.saved(folder / path, content)
    pt_files.write_document(folder / "saes/tiny_L14_features.json", pt_files.features())
    (folder / "notes").mkdir()
    (folder / "notes/run.sh").write_bytes(b"#!/bin/sh\r\nexit 0\n")
    (folder / "notes/run.sh").chmod(0o755)
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    (folder / ".gitattributes").write_text("*.pt filter=lfs\n")
    (folder / ".git").mkdir()
    (folder / ".git/config").write_text("[remote]\n")
    (folder / ".cache/huggingface/download").mkdir(parents=True)
    (folder / ".cache/huggingface/download/README.md.metadata").write_text("x\n")
    return folder


def listing(folder: Path) -> dict[str, bytes]:
    """Content of every file, by path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
