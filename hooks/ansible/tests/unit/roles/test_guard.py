# Copyright the venvguard maintainers
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import yaml

TYPES = {"str": str, "int": int, "bool": bool, "list": list, "dict": dict}


@pytest.fixture
def role(collection):
    return collection / "roles" / "guard"


@pytest.fixture
def options(role):
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())
    return specs["argument_specs"]["main"]["options"]


def test_the_specification_agrees_with_the_defaults(role, options):
    defaults = yaml.safe_load((role / "defaults" / "main.yml").read_text())
    assert {name: option["default"] for name, option in options.items()} == defaults


def test_each_default_is_valid(options):
    for name, option in options.items():
        assert name.startswith("guard_")
        assert isinstance(option["default"], TYPES[option["type"]]), name
        assert isinstance(option["default"], bool) == (option["type"] == "bool"), name
        assert option["default"] in option.get("choices", [option["default"]]), name


def test_each_variable_is_used(role, options):
    texts = [path.read_text() for folder in ("tasks", "templates") for path in (role / folder).iterdir()]
    for name in options:
        assert any(name in text for text in texts), name
