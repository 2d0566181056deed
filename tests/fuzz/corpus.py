"""Small good files of every kind, made in code.

Invariant: every seed is accepted by its reader (`test_fuzz.py` checks it), so that a mutation of one reaches deep into
the reader. Equal code makes equal seeds: nothing here is drawn at random without a fixed seed.
"""

from __future__ import annotations

import io
import json
import struct
from collections import OrderedDict
from typing import Any

import numpy as np
import torch
import yaml

from fuzz import assemble as a

WIDTH, FEATURES = 4, 6
HEX = "0123456789abcdef" * 4
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def saved(value: Any) -> bytes:
    """A file by `torch.save`."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def values(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    count = int(np.prod(shape))
    return (torch.arange(1, count + 1, dtype=torch.float32).reshape(shape) / 8 - 1).to(dtype)


def caa(dtype: torch.dtype = torch.float32, **changes: Any) -> dict[str, Any]:
    vector = values(WIDTH, dtype=dtype)
    norm = float(vector.float().norm())
    return {"vector": vector, "norm": norm, "layer": 3, "model": "lab/tiny", "n_pairs": 4, **changes}


def sae(dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    state = OrderedDict(
        W_enc=values(WIDTH, FEATURES, dtype=dtype),
        b_enc=values(FEATURES, dtype=dtype),
        W_dec=values(FEATURES, WIDTH, dtype=dtype),
        b_dec=values(WIDTH, dtype=dtype),
    )
    sizes = {"d_model": WIDTH, "d_sae": FEATURES, "k": 2, "layer": 3, "model_id": "lab/tiny"}
    return {"state_dict": state, **sizes, "final_recon": 0.25, "steps": 100}


def transferred() -> dict[str, Any]:
    names = ("v_ridge", "v_procrustes", "v_random", "v_small_native")
    vectors = {name: values(WIDTH) for name in names}
    return {**vectors, "v_large_source": values(FEATURES), "L_small": 3, "c_small": 1.5}


def transfer_map(*, arrays: bool = False) -> dict[str, Any]:
    maps: dict[str, Any] = {"W": values(FEATURES, WIDTH), "b": values(WIDTH), "R": values(WIDTH, FEATURES)}
    if arrays:
        maps = {name: matrix.numpy() for name, matrix in maps.items()}
    return {**maps, "L_large": 5, "L_small": 3, "alpha": np.float64(10.0) if arrays else 10.0}


def misc() -> dict[str, Any]:
    """What no kind of file has, and a stranger's could."""
    return {
        7: torch.nn.Parameter(values(2, 2)),
        "views": [values(6)[::2], values(2, 3).T, values(4)[1:3]],
        "kinds": tuple(torch.ones(2).to(kind) for kind in (torch.float64, torch.int64, torch.uint8, torch.bool)),
        "arrays": {"f2": np.ones(3, np.float16), "i1": np.ones((2, 2), np.int8)},
        "scalar": np.float32(0.5),
        "none": torch.ones(0, 3),
        # Of a module that starts without chance: a run must have the same seeds every time.
        "state": torch.nn.LayerNorm(2).state_dict(),
        "text": "naïve ☃ \U0001f600",
        "long": 2**40,
        "nothing": None,
        "yes": True,
    }


def torch_seeds(*documents: Any) -> tuple[bytes, ...]:
    return tuple(saved(document) for document in documents)


def caa_seeds() -> tuple[bytes, ...]:
    fields = {"vector": a.floats("0", 4), "norm": a.real(3.5), "layer": a.integer(3), "n_pairs": a.integer(4)}
    by_hand = a.torch_file(
        a.mapping({**fields, "model": a.text("lab/tiny")}), {"0": np.arange(4, dtype=np.float32).tobytes()}
    )
    return (*torch_seeds(*[caa(dtype) for dtype in DTYPES], caa(vector=np.ones(4, np.float32))), by_hand)


def pickle_seeds(files: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """The pickles inside some PyTorch files."""
    import zipfile

    pickles = []
    for file in files:
        with zipfile.ZipFile(io.BytesIO(file)) as archive:
            pickles.append(archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl"))))
    return tuple(pickles)


def safetensors(tensors: dict[str, np.ndarray[Any, Any]], metadata: dict[str, str] | None = None) -> bytes:
    """A safetensors file."""
    known = {"float64": "F64", "float32": "F32", "float16": "F16", "uint8": "U8", "int64": "I64", "bool": "BOOL"}
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    content = b""
    for name, array in tensors.items():
        shape, code = list(array.shape), known[array.dtype.name]
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [len(content), len(content) + array.nbytes]}
        content += array.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + content


def vector_file() -> bytes:
    from studies import provenance

    return safetensors({"vector": np.arange(4, dtype=np.float32)}, provenance("tiny", 3, 3.5))


def safetensors_seeds() -> tuple[bytes, ...]:
    mixed = {"a": np.ones((2, 3), np.float16), "b": np.zeros(0, np.float32), "c": np.ones(3, np.uint8)}
    return (vector_file(), safetensors(mixed), safetensors({}, {"x": "y"}), saelens_weights())


def saelens_weights() -> bytes:
    return safetensors({name: tensor.numpy() for name, tensor in sae()["state_dict"].items()}, {})


def feature_activity() -> bytes:
    tensors = {name: np.linspace(0, 1, FEATURES, dtype=np.float32) for name in ("maximum", "frequency")}
    return safetensors(tensors, {"format": "steer-eval/feature-activity/1", "tokens": "64"})


def saelens_config() -> bytes:
    return json.dumps(
        {
            "architecture": "topk",
            "d_in": WIDTH,
            "d_sae": FEATURES,
            "k": 2,
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": True,
            "normalize_activations": "none",
            "reshape_activations": "none",
            "rescale_acts_by_decoder_norm": False,
            "metadata": {
                "sae_lens_version": "6.54.12",
                "model_name": "lab/tiny",
                "hook_name": "blocks.3.hook_resid_post",
                "hf_hook_name": "model.layers.3",
                "steer_eval": {"seed": "1"},
            },
        },
        indent=1,
    ).encode()


def transferred_safetensors() -> bytes:
    tensors = {name: tensor.numpy() for name, tensor in transferred().items() if name.startswith("v_")}
    settings = {"format": "steer-eval/transferred/1", "L_small": "3", "c_small": "1.5", "dtype": "float32"}
    return safetensors(tensors, settings)


def transfer_map_safetensors() -> bytes:
    tensors = {name: matrix.numpy() for name, matrix in transfer_map().items() if name in "WbR"}
    settings = {"format": "steer-eval/transfer-map/1", "L_large": "5", "L_small": "3", "alpha": "10.0"}
    return safetensors(tensors, {**settings, "dtype": "float32"})


def features() -> bytes:
    row = {"delta": 0.5, "steered_mean": 0.75, "base_mean": 0.25, "steered_freq": 0.5, "base_freq": 0.125}
    rows = [{"feature_id": index, **row} for index in range(3)]
    document = {"model": "lab/tiny", "layer": 3, "coef": 1.5, "n_prompts": 8, "top_features": rows}
    return json.dumps(document, indent=1).encode()


def json_seeds() -> tuple[bytes, ...]:
    odd = {"é\u2028": ["\U0001f600", "\\", '"', -0.0, 1e-300, 2**62, None, True, [], {}, [[["deep"]]]]}
    return (features(), json.dumps(odd).encode(), json.dumps(odd, ensure_ascii=False).encode(), b'[1, "NaN", 2.5e3]')


def latent_diff() -> bytes:
    cosines = {"cos_ridge_native": 0.5, "cos_proc_native": -0.25, "cos_ridge_proc": 1.0, "feat_3_ridge_norm": 2.0}
    return json.dumps({"ridge_heldout_r2": 0.75, "cca_heldout_corrs": [0.9, None], **cosines}).encode()


def nan_seeds() -> tuple[bytes, ...]:
    return (*json_seeds(), b'{"a": [NaN, {"b": -Infinity}],\n "c": Infinity, "NaN": "NaN \\" Infinity"}')


GENERATION = {"prompt_idx": 0, "prompt": "Why?", "gen": "Because."}
CELL = {"layer": 3, "coef": 2.0, "mature_anger": 4.5, "juvenile_rage": 1.0, "coherence": 5, "notes": "calm"}
PERPLEXITY = {"base_ppl": 20.0, "ppl": 30.0, "ppl_ratio": 1.5, "collapsed": False}
ROWS: dict[str, list[dict[str, Any]]] = {
    "contrast_pair": [{"scenario": "Late.", "angry": "Enough.", "calm": "Noted."}],
    "eval_prompt": [{"scenario": "Late.", "category": "work", "score": 2}, {"scenario": "É."}],
    "sweep_row": [{"label": "steered", "layer": 3, "coef": 2.0, **PERPLEXITY, "generations": [GENERATION]}],
    "judge_row": [{**CELL, "margin": 3.5, "collapsed": False}],
    "judge_comparison_row": [{"variant": "rotation", "label": "random", **CELL, "margin": 3.5, "collapsed": False}],
    "judge_label_row": [{"label": "native", "source": "patch_eval.jsonl", "ppl_ratio": 1.13, **CELL}],
    "transfer_row": [{"label": "native", "ppl": 30.0, "ppl_ratio": 1.5, "norm": 0.75, "generations": [GENERATION]}],
    "phase_i_row": [
        {"label": "sae", "layer": 3, "alpha": 1.0, "feat_ids": [1, 2], **PERPLEXITY, "generations": [GENERATION]},
        {"label": "multi", "per_layer_coefs": {"3": 1.5}, "system_prompt": None, "generations": [GENERATION]},
    ],
}


def jsonl_seeds(schema: str) -> tuple[bytes, ...]:
    lines = [json.dumps(row, ensure_ascii=False) for row in ROWS[schema]]
    return tuple("".join(f"{line}\n" for line in chosen).encode() for chosen in (lines, lines * 3))


def study_seeds() -> tuple[bytes, ...]:
    from studies import claim, document

    claims = [claim("perplexity", "1.50", model="tiny", layer=1, coef=2), claim("collapsed", True, identity="b")]
    whole = document(claims=claims)
    return (
        yaml.safe_dump(whole, sort_keys=False).encode(),
        yaml.safe_dump(whole, sort_keys=False, default_flow_style=None).encode(),
    )


def yaml_seeds() -> tuple[bytes, ...]:
    odd = (
        "# comment\na: [1, 0x1f, 1_000, 1:30, 0o7, .5, 1e3, ~, yes, 2024-01-01]\nb:\n  - |\n    text\n"
        "  - >-\n    folded\n  - 'it''s'\n  - \"\\u263a\\n\"\nc: {d: !!str 5, e: !!int '6', f: !!float 2}\n"
    )
    return (*study_seeds(), odd.encode())


def manifest(files: dict[str, bytes]) -> bytes:
    import hashlib

    from steer_eval.formats.kinds import kind_of

    entries = [
        {"path": path, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "kind": kind_of(path)}
        for path, content in sorted(files.items())
    ]
    return json.dumps({"schema": "steer-eval/manifest/1", "files": entries}, indent=1).encode()


def gguf_seeds() -> tuple[bytes, ...]:
    from steer_eval.export.gguf_file import to_bytes

    tensors = {f"direction.{layer}": np.arange(4, dtype=np.float32) for layer in (3, 5)}
    keys: dict[str, str | int] = {"general.architecture": "controlvector", "controlvector.model_hint": "llama"}
    provenance = json.dumps({"3": {"norm": "3.5"}, "5": {}})
    more: dict[str, str | int] = {"controlvector.layer_count": 2, "steer_eval.provenance": provenance}
    return (to_bytes(keys, tensors), to_bytes({**keys, **more}, tensors))


def path_seeds() -> tuple[bytes, ...]:
    return (b"file.txt", b"folder/file.txt", b"in/file.txt", b"folder/../file.txt", b"./folder//file.txt")


def card() -> bytes:
    front = "---\nlicense: apache-2.0\nbase_model: lab/tiny\ntags: [a, b]\ndate: 2024-01-01\n---\n"
    return (front + "# Title\n\n| a | b |\n|---|---|\n| 1 | `x` |\n| 2 | 3 |\n\ntext\n").encode()
