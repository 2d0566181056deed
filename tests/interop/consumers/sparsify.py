"""What sparsify computes with SAEs, loaded by the lines that `steer-eval export` prints."""

import json
import sys

import torch
from safetensors.torch import load_file, save_file

torch.set_num_threads(1)


def computed(usage, residuals, out):
    names = {}
    exec(usage, names)  # noqa: S102
    sae = names["sae"]
    with torch.no_grad():
        chosen = sae.encode(residuals)
        results = {
            "acts": torch.zeros(len(residuals), sae.num_latents).scatter_(1, chosen.top_indices, chosen.top_acts),
            "decoded": sae.decode(chosen.top_acts, chosen.top_indices),
            "forward": sae(residuals).sae_out,
        }
    state = {f"state.{key}": tensor.contiguous() for key, tensor in sae.state_dict().items()}
    save_file({**results, **state}, out)
    return {"class": type(sae).__name__, "config": sae.cfg.to_dict(), "dtype": str(sae.dtype)}


request = json.load(sys.stdin)
answers = {}
for name, job in request["jobs"].items():
    answers[name] = computed(job["usage"], load_file(job["residuals"])["residuals"], job["out"])
print()
print(json.dumps(answers))
