"""Logits under repeng, steered by the lines that `steer-eval export --to repeng` prints."""

import json
import sys

import torch
from transformers import AutoModelForCausalLM

request = json.load(sys.stdin)
ids = torch.tensor([request["ids"]])
model = AutoModelForCausalLM.from_pretrained(request["model"], dtype=torch.float32)
with torch.no_grad():
    unsteered = model(input_ids=ids).logits[0].tolist()
    names = {"model": model}
    exec(request["usage"], names)  # noqa: S102
    steered = names["model"](input_ids=ids).logits[0].tolist()
vector = names["vector"]
print(
    json.dumps(
        {
            "unsteered": unsteered,
            "steered": steered,
            "model_type": vector.model_type,
            "directions": {layer: values.tolist() for layer, values in vector.directions.items()},
        }
    )
)
