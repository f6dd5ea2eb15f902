"""The page on preparing says what there is, and its configurations are ones."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import yaml

from diascope.data.filters import FILTERS
from diascope.data.preprocess import Crop, Resize
from diascope.data.splitting import SplitSettings
from diascope.training import read_config

DOCS = Path(__file__).parents[2] / "docs" / "datasets"
PAGE = (DOCS / "preparing.md").read_text()


def test_its_configurations_are_read() -> None:
    first, second = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    prepared = read_config(yaml.safe_load(first)).data.preprocess
    assert [FILTERS.name_of(each) for each in prepared.filters] == ["min-max", "contrast"]
    split = yaml.safe_load(second)["data"]["split"]
    assert set(split) == set(SplitSettings.model_fields)
    assert SplitSettings.model_validate(split) == SplitSettings()


def test_it_names_every_member_and_shows_pictures_that_are_there() -> None:
    for name in (*FILTERS.names(), *typing.get_args(Crop), *typing.get_args(Resize)):
        assert f"`{name}`" in PAGE, name
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", PAGE)
    assert len(pictures) == 3
    assert all((DOCS / picture).is_file() for picture in pictures)
