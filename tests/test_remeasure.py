"""SAEs, feature tables and transfers, claimed and measured again."""

from __future__ import annotations

import json
import shutil
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub_fixtures import run_cli
from hub_server import HubServer
from sae_study import SAE, TRANSFER, TRANSFER_NAME, claim, edit, state, with_everything
from some_saes import random_sae
from tiny_models import HIDDEN, save_tiny_model
from tiny_study import Folders, invoke, reproduced

from steer_eval import remeasure
from steer_eval.claims.measures import Needs
from steer_eval.claims.measures.remeasured import MEASURES
from steer_eval.estimate import PROMPT_TOKENS, TOKENS_PER_WORD
from steer_eval.formats.sae import TopKSae
from steer_eval.formats.saelens import read_saelens, write_saelens
from steer_eval.formats.strict_json import read_json
from steer_eval.produce import LoadedModel
from steer_eval.results import Results
from steer_eval.results_files import load_results
from steer_eval.sae import text
from steer_eval.sae.produce import CE_PASSAGES
from steer_eval.sae.results import features_file, quality_file
from steer_eval.study import load_study


@pytest.fixture(scope="module")
def everything(produced: Folders, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    folders = produced.copy(tmp_path_factory.mktemp("everything") / "repos")
    with_everything(folders)
    return folders


@pytest.fixture
def place(everything: Folders, tmp_path: Path) -> Folders:
    return everything.copy(tmp_path / "repos")


def results(folders: Folders) -> Results:
    return load_results(load_study(folders.model / "study.yaml"), model_repo=folders.model, data_repo=folders.data)


def claims(published: Results) -> list[dict[str, Any]]:
    """A claim of every measure that is taken on these."""
    [quality], [table] = published.saes.values(), published.feature_tables.values()
    found = [
        claim("sae_heldout_fvu", f"{quality['held_out_fvu']:.3f}", layer=2),
        claim("sae_l0", f"{quality['held_out_l0']:.2f}", layer=2),
        claim("sae_heldout_tokens", str(quality["held_out_tokens"])),
        claim("sae_clean_cross_entropy", f"{quality['cross_entropy']:.3f}"),
        claim("sae_cross_entropy", f"{quality['cross_entropy_sae']:.3f}"),
        claim("sae_excess_cross_entropy", f"{quality['excess_cross_entropy']:.3f}"),
        claim("sae_passes", True, rule="sae_heldout_fvu <= 0.999 and sae_l0 <= 4"),
        claim("sae_dead_share", f"{100 * quality['dead_share']:.1f}"),
        claim("sae_training_tokens", str(quality["training_tokens"])),
    ]
    clean, ablated = quality["cross_entropy"], quality["cross_entropy_mean_ablation"]
    if ablated > clean:
        recovered = (ablated - quality["cross_entropy_sae"]) / (ablated - clean)
        found.append(claim("sae_recovered_cross_entropy", f"{recovered:.3f}"))
    row = next(row for row in table["top_features"] if row["base_mean"] > 0)
    fields = {
        "feature_delta": row["delta"],
        "feature_base_mean": row["base_mean"],
        "feature_steered_mean": row["steered_mean"],
        "feature_ratio": row["steered_mean"] / row["base_mean"],
        "feature_steered_frequency": 100 * row["steered_freq"],
        "feature_base_frequency": 100 * row["base_freq"],
        "feature_steered_token_frequency": 100 * row["steered_token_freq"],
        "feature_base_token_frequency": 100 * row["base_token_freq"],
        "feature_effect": row["effect"],
        "feature_predicted": row["predicted"],
    }
    for change in ("delta", "forced_delta", "random_delta", "random_forced_delta"):
        low, high = row[f"{change}_interval"]
        name = f"feature_{change}"
        fields |= {name: row[change], f"{name}_low": low, f"{name}_high": high, f"{name}_q": row[f"{change}_q"]}
    found += [claim(name, f"{value:.3f}", feature=row["feature_id"]) for name, value in fields.items()]
    found += [
        claim("feature_discoveries", str(count), variant=change) for change, count in table["discoveries"].items()
    ]
    document = published.transfers[TRANSFER_NAME]
    for protocol, measured in document["protocols"].items():
        prefix = "" if protocol == "recommended" else f"{protocol} "
        rows = {"variant": prefix.strip()} if prefix else {}
        found.append(claim("transfer_rows", str(measured["n_rows"]), **rows))
        tests = [("transfer_cka", measured["debiased_cka"], rows), ("transfer_svcca", measured["svcca"], rows)]
        for kind, its in measured["maps"].items():
            variant = {"variant": f"{prefix}{kind}"}
            found.append(claim("transfer_fitted_r2", f"{its['fitted_r2']:.3f}", **variant))
            found.append(claim("transfer_norm_share", f"{its['carried_norm_share']:.3f}", **variant))
            for name, key in (
                ("heldout_r2", "held_out_r2"),
                ("cosine", "cosine_to_native"),
                ("retrieval", "retrieval"),
            ):
                tests.append((f"transfer_{name}", its[key], variant))
        for name, test, select in tests:
            found.append(claim(name, f"{test['value']:.3f}", **select))
            found.append(claim(f"{name}_null", f"{test['null_95']:.3f}", **select))
            found.append(claim(f"{name}_p", f"{test['p']:.2f}", **select))
            found.append(claim(f"{name}_exceeds_null", test["p"] <= 0.05, **select))
    found += [
        claim("transfer_split_half_cosine", f"{document[end]['split_half_cosine']:.3f}", variant=end)
        for end in ("source", "target")
    ]
    return found


def words(report: dict[str, Any]) -> dict[str, str]:
    return {verdict["id"]: verdict["verdict"] for verdict in report["verdicts"]}


def checks(report: dict[str, Any], measure: str) -> dict[str, dict[str, Any]]:
    [verdict] = [verdict for verdict in report["verdicts"] if verdict["measure"] == measure]
    return {check["evidence"]: check for check in verdict["checks"]}


def test_a_claim_of_every_measure_is_reproduced(place: Folders, tmp_path: Path) -> None:
    made = claims(results(place))
    state(place, *made)
    measures = {each["measure"] for each in made}
    assert {measure.name for measure in MEASURES} <= measures

    code, report = reproduced(place, tmp_path / "run")

    assert (code, report["findings"]) == (0, [])
    assert {name: word for name, word in words(report).items() if word != "reproduced"} == {}
    again = {verdict["measure"] for verdict in report["verdicts"] if len(verdict["checks"]) == 2}
    assert measures - again == {"sae_dead_share", "sae_training_tokens"}
    assert all(check["verdict"] == "reproduced" for verdict in report["verdicts"] for check in verdict["checks"])


def test_every_claim_that_is_far_off_is_contradicted(place: Folders, tmp_path: Path) -> None:
    made = claims(results(place))
    for each in made:
        expected = each["expected"]
        each["expected"] = not expected if isinstance(expected, bool) else str(float(expected) + 50)
    state(place, *made)

    code, report = reproduced(place, tmp_path / "run")

    assert code == 1
    assert set(words(report).values()) == {"contradicted"}
    assert all(check["verdict"] == "contradicted" for verdict in report["verdicts"] for check in verdict["checks"])


def change_json(path: Path, *keys: str, value: Any) -> None:
    document = read_json(path)
    place = document
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path.write_text(json.dumps(document))


def change_quality(place: Folders, **changes: float) -> None:
    path = place.model / "saes/tiny/layers.2/cfg.json"
    quality = json.loads(read_json(path)["metadata"]["steer_eval"]["quality"])
    change_json(path, "metadata", "steer_eval", "quality", value=json.dumps({**quality, **changes}))


def test_a_forgery_that_fits_the_claim_is_found_by_the_rerun(place: Folders, tmp_path: Path) -> None:
    published = results(place)
    fvu = published.saes["tiny", 2]["held_out_fvu"]
    row = published.feature_tables["tiny", 2]["top_features"][0]
    measured = published.transfers[TRANSFER_NAME]["protocols"]["recommended"]
    change_quality(place, held_out_fvu=fvu / 2)
    table = place.model / features_file("tiny", 2)
    change_json(table, "top_features", 0, "predicted", value=row["predicted"] + 1)
    diagnostics = place.model / f"transfer/{TRANSFER_NAME}_diagnostics.json"
    low = measured["debiased_cka"]["null_95"] - 1
    change_json(diagnostics, "protocols", "recommended", "debiased_cka", "null_95", value=low)
    state(
        place,
        claim("sae_heldout_fvu", f"{fvu / 2:.4f}"),
        claim("transfer_cka_null", f"{low:.4f}"),
        claim("sae_l0", f"{published.saes['tiny', 2]['held_out_l0']:.2f}"),
    )

    code, report = reproduced(place, tmp_path / "run")

    assert code == 1
    found = {verdict["measure"]: [check["verdict"] for check in verdict["checks"]] for verdict in report["verdicts"]}
    assert found == {
        "sae_heldout_fvu": ["reproduced", "contradicted"],
        "transfer_cka_null": ["reproduced", "contradicted"],
        "sae_l0": ["reproduced", "reproduced"],
    }


def test_a_small_difference_drifts(place: Folders, tmp_path: Path) -> None:
    entropy = results(place).saes["tiny", 2]["cross_entropy"]
    state(place, claim("sae_clean_cross_entropy", f"{entropy + 0.02:.4f}"))

    _, report = reproduced(place, tmp_path / "run")

    assert checks(report, "sae_clean_cross_entropy")["re-run"]["verdict"] == "drifted"
    assert checks(report, "sae_clean_cross_entropy")["re-run"]["tolerance"] == "±0.005"


def test_numbers_that_contradict_each_other_support_no_claim(place: Folders, tmp_path: Path) -> None:
    published = results(place)
    quality = published.saes["tiny", 2]
    row = published.feature_tables["tiny", 2]["top_features"][0]
    test = published.transfers[TRANSFER_NAME]["protocols"]["recommended"]["debiased_cka"]
    change_quality(place, excess_cross_entropy=quality["excess_cross_entropy"] + 1)
    table = place.model / features_file("tiny", 2)
    change_json(
        table, "top_features", 0, "forced_delta_interval", value=[row["forced_delta"] + 1, row["forced_delta"] + 2]
    )
    diagnostics = place.model / f"transfer/{TRANSFER_NAME}_diagnostics.json"
    change_json(diagnostics, "protocols", "recommended", "debiased_cka", "p", value=0.123)
    feature = row["feature_id"]
    state(
        place,
        claim("sae_cross_entropy", f"{quality['cross_entropy_sae']:.3f}"),
        claim("sae_heldout_fvu", f"{quality['held_out_fvu']:.3f}"),
        claim("feature_forced_delta", f"{row['forced_delta']:.3f}", feature=feature),
        claim("feature_delta_low", f"{row['delta_interval'][0]:.3f}", feature=feature),
        claim("transfer_cka", f"{test['value']:.3f}"),
        claim("transfer_cosine_p", "0.05", variant="procrustes"),
    )

    _, report = reproduced(place, tmp_path / "run", "--level", "recompute")

    contradicted = {verdict["measure"] for verdict in report["verdicts"] if verdict["verdict"] == "contradicted"}
    assert contradicted >= {"sae_cross_entropy", "feature_forced_delta", "transfer_cka"}
    assert {"sae_heldout_fvu", "feature_delta_low"} & contradicted == set()
    assert "difference of the two cross-entropies" in checks(report, "sae_cross_entropy")["published data"]["reason"]
    assert "outside its interval" in checks(report, "feature_forced_delta")["published data"]["reason"]


def test_a_run_directory_has_what_was_measured_again(place: Folders, tmp_path: Path) -> None:
    published = results(place)
    state(place)
    run = tmp_path / "run"
    code, _ = reproduced(place, run, "--cells", "all")

    again = load_results(load_study(run / "study.yaml"), model_repo=run, data_repo=run)

    assert code == 0
    quality = dict(published.saes["tiny", 2])
    # What is on the training text is not measured again.
    del quality["dead_share"], quality["training_tokens"]
    assert again.saes == {("tiny", 2): quality}
    assert again.feature_tables == published.feature_tables
    assert again.transfers == published.transfers
    answer = invoke("reproduce", str(place.model), "--data", str(run), "--level", "recompute", "--json")
    assert json.loads(answer.stdout)["findings"] == []


def test_what_is_done_is_not_done_again(place: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state(place, *claims(results(place)))
    run = tmp_path / "run"
    reproduced(place, run)
    before = {file: (run / file).read_bytes() for file in (quality_file("tiny", 2), features_file("tiny", 2))}
    for name in ("held_out_quality", "measured_table", "diagnosed"):
        monkeypatch.setattr(remeasure, name, lambda *_, **__: pytest.fail("it was measured again"))

    code, report = reproduced(place, run)

    assert code == 0
    assert set(words(report).values()) == {"reproduced"}
    assert {file: (run / file).read_bytes() for file in before} == before


def some_table(folders: Folders, run: Path) -> dict[str, Any]:
    reproduced(folders, run)
    return dict(read_json(run / features_file("tiny", 2)))


def claim_of_the_table(folders: Folders) -> None:
    row = results(folders).feature_tables["tiny", 2]["top_features"][0]
    state(folders, claim("feature_delta", f"{row['delta']:.3f}", feature=row["feature_id"]))


def test_a_table_of_another_sink_threshold_is_not_the_one_in_the_journal(place: Folders, tmp_path: Path) -> None:
    claim_of_the_table(place)
    first = some_table(place, tmp_path / "run")
    config = place.model / "saes/tiny/layers.2/cfg.json"
    found = float(read_json(config)["metadata"]["steer_eval"]["sink_norm"])
    # The threshold is ten times the median norm.
    change_json(config, "metadata", "steer_eval", "sink_norm", value=repr(found / 10))

    resumed = some_table(place, tmp_path / "run")

    assert 0 < resumed["n_tokens"]["base"] < first["n_tokens"]["base"]
    assert resumed == some_table(place, tmp_path / "another")


@pytest.mark.parametrize("constant", ["DRAWS", "RESAMPLES", "INTERVAL"])
def test_a_table_under_other_statistics_is_not_the_one_in_the_journal(
    place: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, constant: str
) -> None:
    claim_of_the_table(place)
    first = some_table(place, tmp_path / "run")
    monkeypatch.setattr(remeasure, constant, "another")
    monkeypatch.setattr(remeasure, "measured_table", lambda *_: {**first, "coef": 77})

    assert some_table(place, tmp_path / "run")["coef"] == 77


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda sae: replace(random_sae(HIDDEN - 16, 96, 4), provenance=sae.provenance), "d_in"),
        (lambda sae: replace(random_sae(HIDDEN, 96, 4, layer=1), provenance=sae.provenance), "metadata.hook_name"),
        (lambda sae: replace(sae, provenance={**sae.provenance, "sink_norm": "abc"}), "sink_norm"),
    ],
)
def test_an_sae_that_does_not_fit_the_model_is_named_and_nothing_is_measured(
    place: Folders,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[TopKSae], TopKSae],
    named: str,
) -> None:
    fvu = results(place).saes["tiny", 2]["held_out_fvu"]
    claim_of_the_table(place)
    made = yaml.safe_load((place.model / "study.yaml").read_text())["claims"]
    state(place, *made, claim("sae_heldout_fvu", f"{fvu:.3f}"))
    folder = place.model / "saes/tiny/layers.2"
    write_saelens(folder, change(read_saelens(folder)))
    for name in ("held_out_text", "table_replies"):
        monkeypatch.setattr(remeasure, name, lambda *_: pytest.fail("something was read for it"))

    _, report = reproduced(place, tmp_path / "run")

    for measure in ("sae_heldout_fvu", "feature_delta"):
        check = checks(report, measure)["re-run"]
        assert check["verdict"] == "not-checkable"
        assert named in check["reason"]
        assert "cfg.json" in check["reason"]


def test_only_what_is_claimed_is_measured_again(
    place: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    l0 = results(place).saes["tiny", 2]["held_out_l0"]
    state(place, claim("sae_l0", f"{l0:.2f}"))
    reproduced(place, run)
    assert [path.name for path in (run / "saes").iterdir()] == ["tiny_L2_quality.json"]
    assert not (run / "transfer").exists()

    # Another study in the same run: nothing that is left over is taken for this one's.
    row = results(place).feature_tables["tiny", 2]["top_features"][0]
    state(place, claim("feature_delta", f"{row['delta']:.3f}", feature=row["feature_id"]))
    monkeypatch.setattr(remeasure, "held_out_text", lambda *_: pytest.fail("a table alone needs no text"))
    _, report = reproduced(place, run)
    assert words(report) == {f"feature-delta-{row['feature_id']}": "reproduced"}
    assert [path.name for path in (run / "saes").iterdir()] == ["tiny_L2_features.json"]


def test_without_the_text_a_claim_says_what_to_install(
    place: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = results(place)
    row = published.feature_tables["tiny", 2]["top_features"][0]
    edit(place, saes=[{**SAE, "text": {"offline": "wikipedia-sample"}}])
    state(
        place,
        claim("sae_heldout_fvu", f"{published.saes['tiny', 2]['held_out_fvu']:.3f}"),
        claim("feature_delta", f"{row['delta']:.3f}", feature=row["feature_id"]),
    )
    monkeypatch.setattr(text, "_PACKAGE", "a-package-that-nobody-has")

    _, report = reproduced(place, tmp_path / "run")

    check = checks(report, "sae_heldout_fvu")["re-run"]
    assert check["verdict"] == "not-checkable"
    assert "not installed" in check["reason"]
    assert "pip install 'steer-eval[sae]'" in check["reason"]
    assert words(report) == {"sae-heldout-fvu": "reproduced", f"feature-delta-{row['feature_id']}": "reproduced"}
    assert checks(report, "feature_delta")["re-run"]["verdict"] == "reproduced"


def test_without_the_sae_its_claims_say_so(place: Folders, tmp_path: Path) -> None:
    l0 = results(place).saes["tiny", 2]["held_out_l0"]
    state(place, claim("sae_l0", f"{l0:.2f}"))
    (place.model / "saes/tiny/layers.2/sae_weights.safetensors").unlink()

    _, report = reproduced(place, tmp_path / "run")

    assert "the file is absent" in checks(report, "sae_l0")["re-run"]["reason"]


def test_what_no_plan_has_is_checked_as_published(place: Folders, tmp_path: Path) -> None:
    published = results(place)
    what = yaml.safe_load((place.model / "study.yaml").read_text())
    del what["saes"], what["transfers"]
    (place.model / "study.yaml").write_text(yaml.safe_dump(what, sort_keys=False))
    state(place, claim("sae_l0", f"{published.saes['tiny', 2]['held_out_l0']:.2f}"))

    code, report = reproduced(place, tmp_path / "run")

    [verdict] = report["verdicts"]
    assert [check["evidence"] for check in verdict["checks"]] == ["published data"]
    assert (code, verdict["verdict"]) == (0, "reproduced")


@pytest.fixture
def between_models(place: Folders) -> Folders:
    """A transfer from the tiny model to another one, planned and diagnosed."""
    save_tiny_model(place.model.parent / "other", seed=1)
    models = yaml.safe_load((place.model / "study.yaml").read_text())["models"]
    models["other"] = {"base_model": "lab/tiny-other", "source": {"local": {"path": "../other"}}}
    ends = {"source": {"model": "tiny", "layer": 2}, "target": {"model": "other", "layer": 1}}
    edit(place, models=models, transfers=[{**TRANSFER, **ends}])
    for command in (["extract"], ["transfer", "fit"], ["transfer", "diagnose"]):
        assert invoke(*command, str(place.model)).exit_code == 0
    test = results(place).transfers["tiny_L2_to_other_L1"]["protocols"]["recommended"]["svcca"]
    state(place, claim("transfer_svcca", f"{test['value']:.3f}", model="other"))
    return place


def test_a_transfer_between_models_needs_one_at_a_time(
    between_models: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[weakref.ref[LoadedModel]] = []
    load = LoadedModel.__init__

    def counted(self: LoadedModel, *arguments: Any, **options: Any) -> None:
        assert all(each() is None for each in alive), "two models in memory"
        alive.append(weakref.ref(self))
        load(self, *arguments, **options)

    monkeypatch.setattr(LoadedModel, "__init__", counted)

    _, report = reproduced(between_models, tmp_path / "run")

    assert len(alive) == 2
    assert checks(report, "transfer_svcca")["re-run"]["verdict"] == "reproduced"


def test_a_transfer_whose_other_model_is_not_there_says_so(between_models: Folders, tmp_path: Path) -> None:
    shutil.rmtree(between_models.model.parent / "base")

    _, report = reproduced(between_models, tmp_path / "run")

    check = checks(report, "transfer_svcca")["re-run"]
    assert (check["verdict"], "was not run" in check["reason"]) == ("not-checkable", True)


def test_what_a_model_has_to_read(place: Folders) -> None:
    study = load_study(place.model / "study.yaml")
    everything = remeasure.everything_beside_cells(study)

    def tokens(wanted: Needs, model: str = "tiny") -> int:
        return remeasure.tokens_to_read(study, wanted, model, prompts=5, pairs=7)

    # Six tenths of a pass, where it stops at a block.
    quality = round(0.6 * 4000 / 10 + 2 * CE_PASSAGES * 32)
    table = round(0.6 * 5 * 5 * (PROMPT_TOKENS + 12))
    transfer = round(0.6 * (300 * TOKENS_PER_WORD + 2 * 7 * (PROMPT_TOKENS + 12)))
    assert tokens(Needs(saes=everything.saes)) == quality
    assert tokens(Needs(features=everything.features)) == table
    assert tokens(everything) == quality + table + transfer
    # The pairs are read once, for vectors and transfers.
    ends = frozenset((end.model, end.layer) for end in (study.transfers[0].source, study.transfers[0].target))
    assert tokens(replace(everything, vectors=ends)) == quality + table + round(0.6 * 300 * TOKENS_PER_WORD)
    assert tokens(everything, "other") == tokens(Needs()) == 0


def test_an_sae_that_was_left_on_the_hub_is_fetched_when_it_is_measured(
    place: Folders, tmp_path: Path, hub: HubServer
) -> None:
    # More than a megabyte, so that opening the repo leaves the weights there.
    edit(place, saes=[{**SAE, "features": 3000, "tokens": 2000}])
    assert invoke("sae", "train", str(place.model)).exit_code == 0
    save_tiny_model(tmp_path / "weights")
    models = yaml.safe_load((place.model / "study.yaml").read_text())["models"]
    models["tiny"]["source"] = {"local": {"path": str(tmp_path / "weights")}}
    edit(place, models=models)
    fvu = results(place).saes["tiny", 2]["held_out_fvu"]
    state(place, claim("sae_heldout_fvu", f"{fvu:.4f}"))
    hub.upload("lab/tiny", "model", place.model)
    hub.upload("lab/tiny-data", "dataset", place.data)

    run = ["--run", str(tmp_path / "run")]
    answer = run_cli("reproduce", "lab/tiny", *run, "--json", env=hub.environment(tmp_path / "home"))

    report = json.loads(answer.stdout)
    assert "values-not-read" in {finding["rule"] for finding in report["findings"]}
    checked = {check["evidence"]: check["verdict"] for check in report["verdicts"][0]["checks"]}
    assert checked == {"published data": "reproduced", "re-run": "reproduced"}
