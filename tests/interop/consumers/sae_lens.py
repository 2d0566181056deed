"""What SAELens computes with SAEs, loaded by lines such as `steer-eval export` prints, or trained here."""

import json
import sys
from pathlib import Path

import torch
from sae_lens import SAE
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.sae import SAEMetadata
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.training.sae_trainer import SAETrainer
from safetensors.torch import load_file, save_file

# The number of threads decides how sums are split, and so their last bits.
torch.set_num_threads(1)


def computed(usage, residuals, out):
    names = {}
    exec(usage, names)  # noqa: S102
    sae = names["sae"]
    with torch.no_grad():
        acts = sae.encode(residuals)
        results = {"acts": acts, "decoded": sae.decode(acts), "forward": sae(residuals)}
    state = {f"state.{key}": tensor.contiguous() for key, tensor in sae.state_dict().items()}
    save_file({**results, **state}, out)
    config = sae.cfg.to_dict()
    return {"class": type(sae).__name__, "config": config}


def batches(residuals):
    while True:
        yield residuals[torch.randint(len(residuals), (64,))]


def train(folder, residuals):
    """Train a Top-K SAE with SAELens' defaults, and save it in each of the ways that SAELens has."""
    torch.manual_seed(0)
    metadata = SAEMetadata(model_name="lab/tiny", hook_name="blocks.3.hook_resid_post", context_size=128)
    config = TopKTrainingSAEConfig(d_in=residuals.shape[1], d_sae=96, k=4, metadata=metadata)
    steps = SAETrainerConfig(
        total_training_samples=64 * 100, train_batch_size_samples=64, lr=1e-2, lr_end=1e-3, dead_feature_window=20
    )
    sae = SAETrainer(steps, TopKTrainingSAE(config), batches(residuals)).fit()
    sae.save_inference_model(folder / "inference")
    sae.save_model(folder / "training")
    SAE.load_from_disk(folder / "inference").save_model(folder / "again")
    # What our reader tells the user to do with the second.
    sae = SAE.load_from_disk(folder / "training")
    sae.fold_W_dec_norm()
    sae.save_model(folder / "folded")


request = json.load(sys.stdin)
if "train" in request:
    train(Path(request["train"]), load_file(request["residuals"])["residuals"])
answers = {}
for name, job in request["jobs"].items():
    answers[name] = computed(job["usage"], load_file(job["residuals"])["residuals"], job["out"])
print()
print(json.dumps(answers))
