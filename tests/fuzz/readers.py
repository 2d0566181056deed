"""The readers of files from strangers, as the fuzzer sees them.

Invariant: a reader is called as the toolkit calls it, on a file of a scratch folder, and says whether it accepted the
file. What it refuses it refuses by one exception, or, where bad rows must not hide good ones, by what it returns.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from fuzz import corpus
from fuzz.mutations import BYTES, Mutation
from fuzz.text_mutations import JSON, JSONL, PATH, SAFETENSORS, YAML
from fuzz.torch_mutations import PICKLE, TORCH
from steer_eval.errors import FormatError, NotFiniteError


@dataclass(frozen=True)
class Reader:
    """One reader.

    Args:
        name: Name of its folder of regressions.
        read: Reads the input in a scratch folder and says whether it was accepted.
        seeds: Good inputs.
        mutations: What is done to them; one that stands twice is chosen twice as often.
        file: Where the input stands in the folder.
        beside: Other files of the folder.
        links: Symbolic links of the folder, and what they point to.
        refusals: What may be raised.
    """

    name: str
    read: Callable[[Path], bool]
    seeds: Sequence[bytes]
    mutations: Sequence[Mutation]
    file: str = "input"
    beside: Mapping[str, bytes] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    refusals: tuple[type[Exception], ...] = (FormatError,)


def of_file(read: Callable[[Path], object], file: str) -> Callable[[Path], bool]:
    """A reader that returns what it read, whatever that is."""

    def call(folder: Path) -> bool:
        read(folder / file)
        return True

    return call


@cache
def readers() -> tuple[Reader, ...]:
    """All readers, in the order in which they take turns."""
    return (*_torch_readers(), *_safetensors_readers(), *_text_readers(), *_folder_readers(), *_export_readers())


def _torch_readers() -> list[Reader]:
    from steer_eval.formats.caa_pt import read_caa_pt
    from steer_eval.formats.pickle_program import RefusedPickleError, interpret
    from steer_eval.formats.sae import read_sae_pt
    from steer_eval.formats.torch_file import read_header, read_torch
    from steer_eval.formats.transfer import read_transfer_map_pt, read_transferred_pt

    caa = corpus.caa_seeds()
    sae = corpus.torch_seeds(*[corpus.sae(dtype) for dtype in corpus.DTYPES])
    transferred = corpus.torch_seeds(corpus.transferred())
    maps = corpus.torch_seeds(corpus.transfer_map(), corpus.transfer_map(arrays=True))
    every = (*caa[:2], sae[0], *maps, *corpus.torch_seeds(corpus.misc()))

    def pickle_program(folder: Path) -> bool:
        interpret((folder / "input").read_bytes())
        return True

    def agreeing(folder: Path) -> bool:
        """Loads, and holds what was loaded against what was said of it before."""
        read_header(folder / "input")
        try:
            file = read_torch(folder / "input")
        except NotFiniteError:
            raise
        except FormatError as error:
            raise AssertionError(f"the header was good, and the file is not: {error}") from None
        if described(file.content) != file.header:
            raise AssertionError(f"the header says {file.header} of {file.content}")
        return True

    return [
        Reader("pickle_program", pickle_program, corpus.pickle_seeds(every), PICKLE, refusals=(RefusedPickleError,)),
        Reader("torch_header", of_file(read_header, "input"), every, TORCH),
        Reader("torch_file", agreeing, every, TORCH),
        Reader("caa_pt", of_file(read_caa_pt, "input"), caa, TORCH),
        Reader("sae_pt", of_file(read_sae_pt, "input"), sae, TORCH),
        Reader("transferred_pt", of_file(read_transferred_pt, "input"), transferred, TORCH),
        Reader("transfer_map_pt", of_file(read_transfer_map_pt, "input"), maps, TORCH),
    ]


def described(value: object, *, top: bool = True) -> object:
    """What `read_header` must say of a loaded value."""
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        return {"dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape)}
    if isinstance(value, np.ndarray):
        return {"dtype": value.dtype.name, "shape": list(value.shape)}
    if isinstance(value, np.generic):
        return {"dtype": value.dtype.name, "shape": []}
    if isinstance(value, dict):
        numbers = {key: item.item() for key, item in value.items() if top and isinstance(item, np.generic)}
        return {str(key): numbers.get(key, described(item, top=False)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [described(item, top=False) for item in value]
    return value


def _safetensors_readers() -> list[Reader]:
    from steer_eval.formats.saelens import read_saelens
    from steer_eval.formats.safetensors_file import read_header
    from steer_eval.formats.transfer import read_transfer_map, read_transferred
    from steer_eval.formats.vector import read_vector
    from steer_eval.sae.feature_activity import FILE, read_feature_activity

    def header(folder: Path) -> bool:
        read_header(folder / "input", name="input")
        return True

    def saelens(folder: Path) -> bool:
        read_saelens(folder)
        return True

    def activity(folder: Path) -> bool:
        read_feature_activity(folder, corpus.FEATURES)
        return True

    config, weights = "cfg.json", "sae_weights.safetensors"
    good_config, good_weights = corpus.saelens_config(), corpus.saelens_weights()
    return [
        Reader("safetensors_header", header, corpus.safetensors_seeds(), SAFETENSORS),
        Reader("vector", of_file(read_vector, "input"), (corpus.vector_file(),), SAFETENSORS),
        Reader("feature_activity", activity, (corpus.feature_activity(),), SAFETENSORS, FILE),
        Reader("saelens_weights", saelens, (good_weights,), SAFETENSORS, weights, {config: good_config}),
        Reader("saelens_config", saelens, (good_config,), JSON, config, {weights: good_weights}),
        Reader("transferred", of_file(read_transferred, "input"), (corpus.transferred_safetensors(),), SAFETENSORS),
        Reader("transfer_map", of_file(read_transfer_map, "input"), (corpus.transfer_map_safetensors(),), SAFETENSORS),
    ]


def _text_readers() -> list[Reader]:
    from steer_eval.formats import card, strict_yaml
    from steer_eval.formats.features import read_features
    from steer_eval.formats.strict_json import read_json, scan_json, scan_jsonl
    from steer_eval.formats.text import read_text
    from steer_eval.study import load_study

    def text(folder: Path) -> bool:
        read_text(folder / "input", "input", limit=2**15)
        return True

    def yaml(folder: Path) -> bool:
        strict_yaml.parse(read_text(folder / "input", "input", limit=2**20), "input")
        return True

    def tables(folder: Path) -> bool:
        content = read_text(folder / "input", "input", limit=2**20)
        card.front_matter(content, "input")
        return bool(card.read_tables(content))

    def scanned(folder: Path) -> bool:
        return not scan_json(folder / "input")[1]

    def rows(schema: str) -> Callable[[Path], bool]:
        return lambda folder: (
            not any(isinstance(item, FormatError) for item in scan_jsonl(folder / "input", schema=schema))
        )

    return [
        Reader("json", of_file(read_json, "input"), corpus.json_seeds(), JSON),
        Reader("json_scan", scanned, corpus.nan_seeds(), JSON),
        Reader("features", of_file(read_features, "input"), (corpus.features(),), JSON),
        *(Reader(f"jsonl_{schema}", rows(schema), corpus.jsonl_seeds(schema), JSONL) for schema in corpus.ROWS),
        Reader("text", text, (corpus.card(), "naïve ☃ \U0001f600\n".encode()), BYTES),
        Reader("yaml", yaml, corpus.yaml_seeds(), YAML),
        Reader("study", of_file(load_study, "input"), corpus.study_seeds(), YAML),
        Reader("card", tables, (corpus.card(),), YAML),
    ]


def _folder_readers() -> list[Reader]:
    from steer_eval.formats.containment import inside
    from steer_eval.formats.manifest import check_manifest
    from steer_eval.inventory import Root, take_inventory

    files = {
        "README.md": corpus.card(),
        "study.yaml": corpus.study_seeds()[0],
        "vectors/tiny_L3_caa.safetensors": corpus.vector_file(),
    }

    def manifest(folder: Path) -> bool:
        return not any(finding.rule == "manifest-unusable" for finding in check_manifest(folder))

    def contained(folder: Path) -> bool:
        path = os.fsdecode((folder.parent / "path").read_bytes())
        # A name that is no text is shown as bytes by whoever shows it; here only its place matters.
        place = inside(folder, path, name="path")
        real = Path(os.path.realpath(place))
        if not real.is_relative_to(os.path.realpath(folder)):
            raise AssertionError(f"{path!r} leads to {real}")
        return True

    def inventory(folder: Path) -> bool:
        found = take_inventory([Root(folder, "", "model")])
        return not any(artifact.troubles for artifact in found.artifacts)

    every = {
        "eval_prompts.jsonl": (corpus.jsonl_seeds("eval_prompt"), JSONL),
        "sweep_tiny.jsonl": (corpus.jsonl_seeds("sweep_row"), JSONL),
        "latent_diff.json": ((corpus.latent_diff(),), JSON),
        "vectors/tiny.pt": (corpus.caa_seeds(), TORCH),
        "saes/tiny.pt": (corpus.torch_seeds(corpus.sae()), TORCH),
        "vectors/tiny_L3_caa.safetensors": ((corpus.vector_file(),), SAFETENSORS),
        "saes/tiny_features.json": ((corpus.features(),), JSON),
        "other.json": (corpus.nan_seeds(), JSON),
    }
    return [
        Reader("manifest", manifest, (corpus.manifest(files),), JSON, "manifest.json", files),
        Reader(
            "containment",
            contained,
            corpus.path_seeds(),
            PATH,
            "../path",
            {"file.txt": b"x", "folder/file.txt": b"y", "../outside/secret": b"z"},
            {"in": "folder", "out": "../outside", "loop": "loop", "folder/up": ".."},
        ),
        *(
            Reader(f"inventory_{file.replace('/', '_')}", inventory, seeds, mutations, file)
            for file, (seeds, mutations) in every.items()
        ),
    ]


def _export_readers() -> list[Reader]:
    from steer_eval.export.gguf_control_vector import read_control_vector

    return [Reader("gguf", of_file(read_control_vector, "input"), corpus.gguf_seeds(), BYTES)]
