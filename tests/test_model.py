from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import (
    ARCHITECTURES,
    BLOCKS,
    HIDDEN,
    SPECIAL_TOKENS,
    TEXT,
    VOCABULARY,
    fingerprint,
    save_tiny_model,
    tiny_conditional_generation,
    tiny_config,
    tiny_language_model,
    tiny_tokenizer,
)
from torch import nn
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from steer_eval.errors import SteerEvalError
from steer_eval.model import decoder_blocks, load_model

IDS = torch.arange(5, 5 + 2 * 21).reshape(2, 21)


class TestBlocks:
    def test_they_are_found_in_every_architecture(self, tiny):
        assert len(tiny.blocks) == BLOCKS
        assert len({id(block) for block in tiny.blocks}) == BLOCKS
        ran = []
        handles = [
            block.register_forward_hook(lambda *_, index=index: ran.append(index))
            for index, block in enumerate(tiny.blocks)
        ]
        tiny.final_hidden(IDS)
        for handle in handles:
            handle.remove()
        assert ran == list(range(BLOCKS))

    def test_a_vision_tower_of_the_same_depth_is_not_taken_for_them(self):
        text = tiny_config("gemma3")
        vision = {
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": BLOCKS,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        }
        config = Gemma3Config(text_config=text.to_dict(), vision_config=vision, mm_tokens_per_image=4)
        module = Gemma3ForConditionalGeneration(config)
        lists = [child for child in module.modules() if isinstance(child, nn.ModuleList) and len(child) == BLOCKS]
        assert len(lists) == 2
        assert decoder_blocks(module) is module.get_decoder().layers

    def test_a_model_without_them_is_refused(self):
        lm = tiny_language_model("llama")
        del lm.module.model.layers[-1]
        with pytest.raises(SteerEvalError, match="LlamaForCausalLM has no list of 4 decoder blocks"):
            decoder_blocks(lm.module)


def test_habits_are_what_would_change_greedy_text():
    lm = tiny_language_model("llama", eos_ids=[7])
    config = lm.module.generation_config
    config.update(do_sample=True, temperature=0.6, top_p=0.9, max_length=40, repetition_penalty=1.0, num_beams=1)
    assert lm.habits == {}
    config.update(repetition_penalty=1.1, suppress_tokens=[3], sequence_bias=[[[1, 2], -3.0]], min_length=5)
    expected = {"repetition_penalty": 1.1, "suppress_tokens": [3], "sequence_bias": [[[1, 2], -3.0]], "min_length": 5}
    assert lm.habits == expected


def test_facts_of_the_model(tiny):
    assert tiny.hidden_size == HIDDEN
    assert tiny.device == torch.device("cpu")
    assert tiny.dtype == "float32"


PLAIN = "{% for turn in messages %}{{ turn.role }}: {{ turn.content }}\n{% endfor %}{{ 'A:' if add_generation_prompt }}"


class TestEndOfSequence:
    def test_the_generation_configuration_decides(self):
        assert tiny_language_model(eos_ids=[7, 9]).eos_ids == {7, 9}
        lm = tiny_language_model()
        lm.module.generation_config.eos_token_id = 7
        lm.tokenizer.eos_token = SPECIAL_TOKENS[1]
        assert lm.eos_ids == {7}

    def test_the_tokenizer_stands_in(self):
        lm = tiny_language_model()
        lm.tokenizer.eos_token = SPECIAL_TOKENS[3]
        assert lm.eos_ids == {3}

    def test_there_may_be_none(self):
        assert tiny_language_model().eos_ids == frozenset()


class TestTokens:
    def test_a_chat_ends_where_the_reply_begins(self):
        lm = tiny_language_model(bos=True)
        text = lm.tokenizer.decode(lm.chat_ids("The dogs were quiet."))
        assert text == "<|im_start|>user\nThe dogs were quiet.<|im_end|>\n<|im_start|>assistant\n"

    def test_a_system_turn_comes_first(self):
        lm = tiny_language_model()
        text = lm.tokenizer.decode(lm.chat_ids("Hi.", system="Be calm."))
        assert text.startswith("<|im_start|>system\nBe calm.<|im_end|>\n<|im_start|>user\nHi.")
        assert lm.tokenizer.decode(lm.system_ids("Be calm.")) == "<|im_start|>system\nBe calm.<|im_end|>\n"

    def test_markers_of_the_template_are_single_tokens(self):
        lm = tiny_language_model()
        assert lm.chat_ids("x")[0] == lm.tokenizer.convert_tokens_to_ids("<|im_start|>")

    def test_a_model_without_a_template_is_refused(self):
        with pytest.raises(SteerEvalError, match="no chat template"):
            tiny_language_model(chat=False).chat_ids("x")

    def test_a_template_may_be_given(self, tmp_path):
        save_tiny_model(tmp_path)
        own, given = load_model(tmp_path), load_model(tmp_path, chat_template=PLAIN)
        assert own.chat_ids("Hi.") == tiny_language_model().chat_ids("Hi.")
        assert given.tokenizer.decode(given.chat_ids("Hi.", system="Be calm.")) == "system: Be calm.\nuser: Hi.\nA:"
        assert given.tokenizer.decode(given.system_ids("Be calm.")) == "system: Be calm.\n"

    @pytest.mark.parametrize(
        ("template", "said"),
        [
            ("{{ raise_exception('only users') if messages[0].role != 'user' }}", "system and user: only users"),
            ("{% for turn in messages %}", "Unexpected end of template"),
            ("{{ messages[0].role.nothing.more }}", "has no attribute 'nothing'"),
            ("{{ 1 / 0 }}", "division by zero"),
            ("{{ messages + 1 }}", "can only concatenate list"),
            ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", "recursion"),
            ("{{ 'a' * 2**21 }}", "makes 2,097,152 characters of 11, and 1,048,576 is the most"),
        ],
    )
    def test_a_template_that_refuses_is_quoted(self, tmp_path, template, said):
        save_tiny_model(tmp_path)
        lm = load_model(tmp_path, chat_template=template)
        with pytest.raises(SteerEvalError, match=said) as caught:
            lm.chat_ids("Hi.", system="Be calm.")
        assert "`chat_template`" in caught.value.fix

    def test_a_template_may_ask_for_no_thinking(self):
        lm = tiny_language_model()
        lm.tokenizer.chat_template = "{{ 'thinking' if enable_thinking is not false else 'plain' }}"
        assert lm.tokenizer.decode(lm.chat_ids("x")) == "plain"

    def test_special_tokens_are_added_on_request_only(self):
        lm = tiny_language_model(bos=True)
        bos = lm.tokenizer.bos_token_id
        plain = lm.text_ids(TEXT, special_tokens=False)
        assert bos not in plain
        assert lm.text_ids(TEXT, special_tokens=True) == [bos, *plain]

    def test_decoding_leaves_special_tokens_out(self):
        lm = tiny_language_model(bos=True)
        assert lm.decode(lm.text_ids(TEXT, special_tokens=True)) == TEXT


class TestHead:
    @torch.no_grad()
    def test_it_sees_what_the_backbone_returns(self, tiny):
        output = tiny.module(input_ids=IDS, use_cache=False, output_hidden_states=True)
        assert torch.equal(tiny.final_hidden(IDS), output.hidden_states[-1])

    @torch.no_grad()
    def test_its_logits_are_the_models_own(self, tiny):
        # Scaled in Granite and soft-capped in Gemma 3.
        expected = tiny.module(input_ids=IDS, use_cache=False).logits
        assert torch.equal(tiny.logits(tiny.final_hidden(IDS)), expected)
        assert expected.shape == (*IDS.shape, VOCABULARY)

    def test_positions_can_be_asked_for_in_pieces(self, tiny):
        hidden = tiny.final_hidden(IDS)
        pieces = [tiny.logits(hidden[:, start : start + 5]) for start in range(0, IDS.shape[1], 5)]
        torch.testing.assert_close(torch.cat(pieces, dim=1), tiny.logits(hidden), rtol=1e-5, atol=1e-5)

    def test_the_model_stays_as_it_was(self, tiny):
        before = fingerprint(tiny)
        tiny.logits(tiny.final_hidden(IDS))
        with pytest.raises(IndexError):
            tiny.final_hidden(torch.tensor([[10**6]]))
        with pytest.raises(RuntimeError):
            tiny.logits(torch.zeros(1, 1, HIDDEN + 1))
        assert fingerprint(tiny) == before


class TestLoading:
    @pytest.mark.parametrize("architecture", ARCHITECTURES)
    def test_a_saved_model_comes_back(self, tmp_path, architecture):
        saved = save_tiny_model(tmp_path, architecture)
        loaded = load_model(tmp_path)
        assert torch.equal(loaded.logits(loaded.final_hidden(IDS)), saved.logits(saved.final_hidden(IDS)))
        assert loaded.chat_ids("Who?") == saved.chat_ids("Who?")
        assert not loaded.module.training

    def test_the_precision_is_asked_for(self, tmp_path):
        save_tiny_model(tmp_path)
        assert load_model(tmp_path, dtype="bfloat16").dtype == "bfloat16"

    def test_the_device_is_read_from_the_environment(self, tmp_path, monkeypatch):
        save_tiny_model(tmp_path)
        monkeypatch.setenv("STEER_EVAL_DEVICE", "meta")
        assert load_model(tmp_path).device.type == "meta"
        assert load_model(tmp_path, device="cpu").device.type == "cpu"

    def test_an_empty_device_is_the_cpu(self, tmp_path, monkeypatch):
        save_tiny_model(tmp_path)
        monkeypatch.setenv("STEER_EVAL_DEVICE", "")
        assert load_model(tmp_path).device.type == "cpu"

    @pytest.mark.parametrize("device", ["foo", "cuda", "cuda:99", "mps", "hpu", "xla", "cpu:x", " "])
    def test_a_device_that_is_not_there_is_refused_before_anything_is_loaded(self, tmp_path, monkeypatch, device):
        if device == str(torch.accelerator.current_accelerator(check_available=True)):
            pytest.skip("this machine has it")
        monkeypatch.setenv("STEER_EVAL_DEVICE", device)
        with pytest.raises(SteerEvalError, match=r"devices that there are: cpu") as caught:
            load_model(tmp_path / "absent")
        assert caught.value.message.startswith(f"STEER_EVAL_DEVICE is {device!r}")
        assert "\n" not in caught.value.message
        assert "STEER_EVAL_DEVICE" in caught.value.fix

    @pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
    def test_an_incomplete_folder_is_refused_in_one_line(self, tmp_path, missing):
        save_tiny_model(tmp_path)
        (tmp_path / missing).unlink()
        with pytest.raises(SteerEvalError) as caught:
            load_model(tmp_path)
        assert str(tmp_path) in caught.value.message
        assert "\n" not in caught.value.message
        assert caught.value.fix

    def test_broken_weights_are_refused(self, tmp_path):
        save_tiny_model(tmp_path)
        (tmp_path / "model.safetensors").write_bytes(b"no tensors")
        with pytest.raises(SteerEvalError):
            load_model(tmp_path)

    def test_weights_that_lack_a_tensor_are_refused(self, tmp_path):
        save_tiny_model(tmp_path)
        tensors = load_file(tmp_path / "model.safetensors")
        del tensors["model.layers.1.mlp.up_proj.weight"]
        save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(SteerEvalError, match=r"lack model\.layers\.1\.mlp\.up_proj\.weight"):
            load_model(tmp_path)

    def test_pickled_weights_are_refused(self, tmp_path):
        lm = save_tiny_model(tmp_path)
        (tmp_path / "model.safetensors").unlink()
        torch.save(lm.module.state_dict(), tmp_path / "pytorch_model.bin")
        with pytest.raises(SteerEvalError):
            load_model(tmp_path)

    def test_code_of_strangers_is_not_run(self, tmp_path):
        save_tiny_model(tmp_path)
        config = tmp_path / "config.json"
        remote = (
            '{"auto_map": {"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Config"}, "model_type": "evil",'
        )
        config.write_text(config.read_text().replace("{", remote, 1).replace('"model_type": "llama"', '"was": "llama"'))
        ran = tmp_path / "ran"
        (tmp_path / "evil.py").write_text(f"from pathlib import Path\nPath({str(ran)!r}).touch()\n")
        with pytest.raises(SteerEvalError):
            load_model(tmp_path)
        assert not ran.exists()


def test_a_model_is_a_value_that_can_be_changed_in_part():
    lm = tiny_language_model()
    other = replace(lm, tokenizer=tiny_tokenizer(bos=True))
    assert other.module is lm.module
    assert other.text_ids("a", special_tokens=True)[0] == other.tokenizer.bos_token_id


def test_a_block_goes_by_its_place_in_the_model(tiny):
    path = tiny.block_path(2)

    assert tiny.module.get_submodule(path) is tiny.blocks[2]
    assert path == {"gpt2": "transformer.h.2"}.get(tiny.module.config.model_type, "model.layers.2")


def test_a_block_of_a_wrapped_text_model_goes_by_its_place_in_the_wrapper():
    assert tiny_conditional_generation().block_path(1) == "model.language_model.layers.1"
