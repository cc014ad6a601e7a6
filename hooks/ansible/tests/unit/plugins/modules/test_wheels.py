# Copyright the venvguard maintainers
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
from ansible_collections.venvguard.venvguard.plugins.modules import wheels

HASH = "ab" * 32


def test_hashes_are_read_as_they_are_written():
    hashes = {"psycopg2==2.9.5": HASH, "numpy==1.24.2": "cd" * 32}
    text = wheels.write_hashes(hashes)
    assert text.startswith("numpy==1.24.2 --hash=sha256:cdcd")
    assert wheels.read_hashes("# a comment\n\n" + text) == hashes


@pytest.mark.parametrize("line", ["numpy", "numpy==1 --hash=md5:00", "numpy==1 --hash=sha256:zz", "-r other.txt"])
def test_a_damaged_line_is_refused(line):
    with pytest.raises(ValueError):
        wheels.read_hashes(line)


def test_a_wheel_is_present_only_with_its_hash():
    files = {"a.whl": HASH, "b.whl": "ef" * 32}
    hashes = {"a==1": HASH, "b==1": "cd" * 32}
    assert wheels.present(["a==1", "b==1", "c==1"], files, hashes) == {"a==1": {"file": "a.whl", "sha256": HASH}}
    assert wheels.strangers(files, hashes) == ["b.whl"]
