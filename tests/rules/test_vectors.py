from __future__ import annotations

from dataclasses import replace

from studies import HEX, build, vector

from steer_eval.formats.vector import file_name, write_vector
from steer_eval.validate import validate


def test_a_converted_vector_leaves_open_from_which_pairs_it_is(tmp_path):
    """What the file does say is still held to the study."""
    place = build(tmp_path)
    good = vector("tiny", 3)
    kept = {key: part for key, part in good.provenance.items() if key not in ("pairs_sha256", "weights_sha256")}
    converted = {**kept, "source_format": "caa-pt", "source_file": "vectors/tiny_L3_caa.pt", "source_sha256": HEX}
    write_vector(place.model / file_name("tiny", 3), replace(good, provenance=converted))
    place.seal()

    [finding] = validate(place.repositories()).findings
    assert (finding.rule, finding.severity) == ("vector-converted", "note")
    assert "vectors/tiny_L3_caa.pt" in finding.message
