"""How strongly and how often the features of an SAE fire on the text that it was trained on.

Invariant: an activity file holds two finite float32 tensors of one length, none of them negative, and no frequency
above 1; reading allocates nothing before its header is known to be good. Attention sinks do not count. The file stands
beside the weights of an SAE, which SAELens loads without looking at it; a folder without one is an SAE all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steer_eval.errors import FormatError
from steer_eval.formats.atomic import write_bytes
from steer_eval.formats.containment import inside
from steer_eval.formats.finite import check_finite
from steer_eval.formats.mapped_tensors import MappedTensors
from steer_eval.formats.safetensors_file import read_header, write_header
from steer_eval.formats.schema import check

FILE = "activity.safetensors"
FORMAT = "steer-eval/feature-activity/1"
TENSORS = ("maximum", "frequency")
MAX_FILE_BYTES = 64 * 2**20
_AGAIN = "run `steer-eval sae train` on the study, which writes it"


@dataclass(frozen=True, eq=False)
class FeatureActivity:
    """What the features of an SAE do on a text.

    Args:
        maximum: Largest activation of each feature, float32 `[d_sae]`; 0 where it never fires.
        frequency: Share of the tokens on which it fires, float32 `[d_sae]`.
    """

    maximum: NDArray[np.float32]
    frequency: NDArray[np.float32]


def read_feature_activity(folder: Path, d_sae: int, *, name: str | None = None) -> FeatureActivity:
    """Read the activity of an SAE's features.

    Args:
        folder: The SAE's folder.
        d_sae: How many features the SAE has.
        name: What to call the folder in messages; its path by default.

    Raises:
        FormatError: The file is absent, is of another number of features, or is not what this module promises.
    """
    file = f"{name or folder}/{FILE}"
    path = inside(folder, FILE, name=file)
    try:
        header = read_header(path, name=file, limit=MAX_FILE_BYTES)
    except FormatError as error:
        raise FormatError(
            file, error.where, error.reason, expected=error.expected, observed=error.observed, fix=_AGAIN
        ) from None
    check(header, "feature_activity", file=file, where="header")
    for key in TENSORS:
        if header[key]["shape"] != [d_sae]:
            message = f"the SAE beside it has {d_sae} features"
            raise FormatError(file, key, message, expected=[d_sae], observed=header[key]["shape"], fix=_AGAIN)
    try:
        # Copied: the file may be written again while these are in use.
        maximum, frequency = (MappedTensors(path, header).values(key).copy() for key in TENSORS)
    except (OSError, ValueError) as error:
        raise FormatError(file, "", f"not safetensors: {error}", fix=_AGAIN) from None
    for key, values in zip(TENSORS, (maximum, frequency), strict=True):
        check_finite(values, name=file, where=key)
    _check_range(maximum, float("inf"), file=file, where="maximum")
    _check_range(frequency, 1.0, file=file, where="frequency")
    return FeatureActivity(maximum, frequency)


def write_feature_activity(folder: Path, activity: FeatureActivity, *, tokens: int) -> None:
    """Write the activity of an SAE's features into its folder, atomically; equal activities are equal files.

    Args:
        folder: The SAE's folder.
        activity: The activity.
        tokens: How many tokens it is over, attention sinks left out.
    """
    content, header, position = [], {}, 0
    for key, values in zip(TENSORS, (activity.maximum, activity.frequency), strict=True):
        data = np.asarray(values, "<f4").tobytes()
        header[key] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [position, position + len(data)]}
        content.append(data)
        position += len(data)
    metadata = {"format": FORMAT, "tokens": str(tokens)}
    write_bytes(folder / FILE, b"".join([write_header(metadata, header), *content]))


def _check_range(values: NDArray[np.float32], highest: float, *, file: str, where: str) -> None:
    outside = (values < 0) | (values > highest)
    if bool(outside.any()):
        feature = int(outside.argmax())
        expected = "at least 0" if highest == float("inf") else f"0 to {highest:g}"
        observed = float(values[feature])
        raise FormatError(
            file, f"{where}[{feature}]", "there is no such value", expected=expected, observed=observed, fix=_AGAIN
        )
