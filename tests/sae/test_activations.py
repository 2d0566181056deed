from __future__ import annotations

import hashlib

import pytest
import torch
from tiny_models import ARCHITECTURES, HIDDEN, TEXT, tiny_language_model

from steer_eval.errors import FormatError
from steer_eval.sae import activations
from steer_eval.sae.activations import Passage, capture, cut, holds, load_split, read_manifest

KEY = {"weights_sha256": "0" * 64, "text_sha256": "1" * 64}
LAYER = 2


def texts(count: int = 24) -> list[str]:
    """Documents of very different lengths."""
    return [TEXT[3 * index : 3 * index + 20 + 37 * (index % 7)] for index in range(count)]


@pytest.fixture
def small_shards(monkeypatch) -> None:
    monkeypatch.setattr(activations, "SEQUENCES_PER_SHARD", 5)
    monkeypatch.setattr(activations, "TOKENS_PER_BATCH", 60)


def digests(folder) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("bos", [False, True])
def test_passages_hold_the_documents(bos):
    lm = tiny_language_model(bos=bos)

    passages = cut(lm, texts(), context=16, tokens=10**6)

    start = lm.text_ids("", special_tokens=True)
    assert len(start) == bos
    for number, text in enumerate(texts()):
        mine = [passage for passage in passages if passage.document == number]
        assert all(list(passage.ids[: len(start)]) == list(start) and len(passage.ids) <= 16 for passage in mine)
        joined = [token for passage in mine for token in passage.ids[len(start) :]]
        assert joined == lm.text_ids(text, special_tokens=False)
        assert len({passage.split for passage in mine}) == 1
    assert {passage.document for passage in passages if passage.split == "held_out"} == {9, 19}


def test_cutting_stops_at_the_wanted_number_of_tokens():
    lm = tiny_language_model()
    whole = cut(lm, texts(), context=16, tokens=10**6)

    some = cut(lm, texts(), context=16, tokens=100)

    assert some == whole[: len(some)]
    assert 100 <= sum(len(passage.ids) for passage in some) < 116


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_residuals_are_those_of_a_plain_forward_pass(architecture, tmp_path, small_shards):
    lm = tiny_language_model(architecture)
    passages = cut(lm, texts(), context=16, tokens=10**6)

    capture(lm, passages, LAYER, tmp_path, key=KEY)

    for split in ("train", "held_out"):
        stored = load_split(tmp_path, split)
        numbers = [number for number, passage in enumerate(passages) if passage.split == split]
        assert stored.ids().tolist() == [token for number in numbers for token in passages[number].ids]
        assert stored.sequences().tolist() == [number for number in numbers for _ in passages[number].ids]
        assert stored.positions().tolist() == [
            place for number in numbers for place in range(len(passages[number].ids))
        ]
        rows = stored.rows(torch.arange(len(stored)))
        for number in numbers[:12]:
            with torch.no_grad():
                states = lm.module(
                    input_ids=torch.tensor([passages[number].ids]), output_hidden_states=True, use_cache=False
                ).hidden_states
            mine = rows[stored.sequences() == number]
            # bfloat16 keeps eight bits of each value.
            assert torch.allclose(mine, states[LAYER + 1][0], rtol=2**-7, atol=1e-4)


def test_rows_are_gathered_from_all_shards(tmp_path, small_shards):
    lm = tiny_language_model()
    capture(lm, cut(lm, texts(), context=16, tokens=10**6), LAYER, tmp_path, key=KEY)
    stored = load_split(tmp_path, "train")
    whole = torch.cat([shard.residuals for shard in stored.shards]).float()

    wanted = torch.randperm(len(stored), generator=torch.Generator().manual_seed(0))

    assert len(stored.shards) > 3
    assert torch.equal(stored.rows(wanted), whole[wanted])
    assert torch.equal(torch.cat(list(stored.batches(7))), whole)


class KilledError(Exception):
    pass


@pytest.mark.parametrize("architecture", ["llama", "qwen3_5"])
def test_a_killed_capture_ends_in_the_same_bytes(architecture, tmp_path, small_shards):
    lm = tiny_language_model(architecture)
    passages = cut(lm, texts(), context=16, tokens=10**6)
    capture(lm, passages, LAYER, tmp_path / "whole", key=KEY)
    counts = []

    def kill(tokens: int) -> None:
        counts.append(tokens)
        if len(counts) == 3:
            raise KilledError

    with pytest.raises(KilledError):
        capture(lm, passages, LAYER, tmp_path / "cut", key=KEY, on_tokens=kill)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cut").glob("*.safetensors")}
    done: list[int] = []
    capture(lm, passages, LAYER, tmp_path / "cut", key=KEY, on_tokens=done.append)

    assert len(before) == 3
    assert all((tmp_path / "cut" / name).stat().st_mtime_ns == time for name, time in before.items())
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")
    assert sum(done) == sum(len(passage.ids) for passage in passages)


def test_the_held_out_part_alone_and_the_rest_later(tmp_path, small_shards):
    lm = tiny_language_model()
    passages = cut(lm, texts(), context=16, tokens=10**6)
    capture(lm, passages, LAYER, tmp_path / "whole", key=KEY)

    capture(lm, passages, LAYER, tmp_path / "parts", key=KEY, splits=["held_out"])
    alone = digests(tmp_path / "parts")
    capture(lm, passages, LAYER, tmp_path / "parts", key=KEY, splits=["train"])

    assert not any(name.startswith("train") for name in alone)
    both = digests(tmp_path / "parts")
    assert {name: both[name] for name in alone if name != "activations.json"}.items() <= both.items()
    assert {name: digest for name, digest in both.items() if name != "activations.json"} == {
        name: digest for name, digest in digests(tmp_path / "whole").items() if name != "activations.json"
    }
    assert len(load_split(tmp_path / "parts", "train")) == len(load_split(tmp_path / "whole", "train"))


@pytest.mark.parametrize("killed", [False, True])
def test_a_folder_of_other_activations_is_refused(killed, tmp_path, small_shards):
    lm = tiny_language_model()
    passages = cut(lm, texts(), context=16, tokens=200)

    def kill(_tokens: int) -> None:
        raise KilledError

    if killed:
        with pytest.raises(KilledError):
            capture(lm, passages, LAYER, tmp_path, key=KEY, on_tokens=kill)
    else:
        capture(lm, passages, LAYER, tmp_path, key=KEY)

    with pytest.raises(FormatError, match="activations of something else"):
        capture(lm, passages, LAYER, tmp_path, key={**KEY, "text_sha256": "2" * 64})
    with pytest.raises(FormatError, match="activations of something else"):
        capture(lm, passages, LAYER + 1, tmp_path, key=KEY)


def test_a_shard_of_another_length_is_named(tmp_path, small_shards):
    lm = tiny_language_model()
    capture(lm, [Passage((5, 6, 7), 0), Passage((5, 6), 9)], LAYER, tmp_path, key=KEY)
    (tmp_path / "held_out-00000.safetensors").write_bytes((tmp_path / "train-00000.safetensors").read_bytes())

    assert read_manifest(tmp_path)["key"] == {**KEY, "layer": LAYER}
    assert load_split(tmp_path, "train").rows(torch.tensor([1])).shape == (1, HIDDEN)
    with pytest.raises(FormatError, match="another number of tokens"):
        load_split(tmp_path, "held_out")


@pytest.mark.parametrize("damage", [lambda _: b"", lambda content: content[:-10], lambda _: b"garbage" * 9])
def test_a_damaged_shard_is_named_and_made_again(damage, tmp_path, small_shards):
    lm = tiny_language_model()
    passages = cut(lm, texts(), context=16, tokens=200)
    capture(lm, passages, LAYER, tmp_path, key=KEY)
    path = tmp_path / "train-00000.safetensors"
    whole = path.read_bytes()
    path.write_bytes(damage(whole))

    with pytest.raises(FormatError, match="damaged") as caught:
        load_split(tmp_path, "train")
    assert caught.value.file == str(path)
    assert "delete it and run again" in caught.value.fix
    path.unlink()
    assert not holds(tmp_path, LAYER, KEY, ["train"])
    capture(lm, passages, LAYER, tmp_path, key=KEY)
    assert path.read_bytes() == whole


def test_the_text_is_kept_beside_its_residuals(tmp_path, small_shards):
    lm = tiny_language_model()
    passages = cut(lm, texts(), context=16, tokens=10**6)
    capture(lm, passages, LAYER, tmp_path, key=KEY)

    for split in ("train", "held_out"):
        assert load_split(tmp_path, split).passages() == [each for each in passages if each.split == split]


def test_a_folder_knows_what_it_holds(tmp_path, small_shards):
    lm = tiny_language_model()
    passages = cut(lm, texts(), context=16, tokens=10**6)
    assert not holds(tmp_path, LAYER, KEY, ["held_out"])

    capture(lm, passages, LAYER, tmp_path, key=KEY, splits=["held_out"])

    assert holds(tmp_path, LAYER, KEY, ["held_out"])
    assert not holds(tmp_path, LAYER, KEY, ["train", "held_out"])
    assert not holds(tmp_path, LAYER + 1, KEY, ["held_out"])
    assert not holds(tmp_path, LAYER, {**KEY, "tokens": 3}, ["held_out"])
