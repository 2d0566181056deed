"""Types of tables in the front matter are written as `datasets` writes them."""

from __future__ import annotations

from typing import Any

from datasets import Features, List, Value
from datasets.info import DatasetInfo, DatasetInfosDict
from huggingface_hub import DatasetCardData
from hypothesis import given, settings
from hypothesis import strategies as st

from steer_eval.table_configs import TableConfig, list_tables

NAMES = st.text("abcdef_", min_size=1, max_size=4)
LEAVES = st.sampled_from(["null", "bool", "int64", "float64", "string"])
TREES: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, min_size=1, max_size=1) | st.dictionaries(NAMES, inner, min_size=1, max_size=3),
    max_leaves=6,
)
COLUMNS = st.dictionaries(NAMES, TREES, min_size=1, max_size=4)


def feature(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: feature(each) for key, each in tree.items()}
    return List(feature(tree[0])) if isinstance(tree, list) else Value(tree)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES.filter(lambda name: name != "default"), COLUMNS, min_size=1, max_size=3))
def test_types_are_written_as_datasets_writes_them(tables: dict[str, Any]) -> None:
    ours, theirs = DatasetCardData(), DatasetCardData()

    list_tables(ours, [TableConfig(name, {"x": f"{name}.jsonl"}, columns) for name, columns in tables.items()])

    infos = {name: DatasetInfo(features=Features(feature(columns))) for name, columns in tables.items()}
    DatasetInfosDict(infos).to_dataset_card_data(theirs)
    # The order of keys counts too.
    assert str(ours["dataset_info"]) == str(theirs["dataset_info"])
