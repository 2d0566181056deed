"""Logits under the steering-vectors library, steered by the lines that `steer-eval export` prints for it."""

import json
import sys

import torch
from transformers import AutoModelForCausalLM

request = json.load(sys.stdin)
inputs = {"input_ids": torch.tensor([request["ids"]])}
model = AutoModelForCausalLM.from_pretrained(request["model"], dtype=torch.float32)
passes = []


def one_pass(**inputs):
    passes.append(model(**inputs).logits[0].tolist())


# The printed lines generate; one forward pass shows the numbers behind the text.
model.generate = one_pass
with torch.no_grad():
    one_pass(**inputs)
names = {"model": model, "inputs": inputs}
exec(request["usage"], names)  # noqa: S102
with torch.no_grad():
    one_pass(**inputs)
unsteered, steered, after = passes
print(
    json.dumps(
        {
            "unsteered": unsteered,
            "steered": steered,
            "after": after,
            "layers": list(names["vector"].layer_activations),
            "layer_type": names["vector"].layer_type,
        }
    )
)
