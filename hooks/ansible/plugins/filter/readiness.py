# Copyright the venvguard maintainers
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping

from ansible.utils.unsafe_proxy import wrap_var
from ansible_collections.venvguard.venvguard.plugins.module_utils import readiness, readiness_page


def plain(value):
    """The same value in Python's own types: Ansible's containers compute their items when they are asked."""
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def untrusted(function):
    """The same function, whose result Ansible never takes for a template: hosts have written parts of it."""

    def wrapped(*arguments, **options):
        return wrap_var(function(*plain(arguments), **plain(options)))

    return wrapped


class FilterModule:
    """The report of the playbook `readiness`, and the comparison of the playbook `upgrade`."""

    def filters(self):
        return {
            "readiness": untrusted(readiness.report),
            "readiness_page": untrusted(readiness_page.page),
            "readiness_summary": untrusted(readiness_page.in_lines),
            "missing_wheels": untrusted(readiness.missing_wheels),
            "not_as_before": untrusted(readiness.not_as_before),
        }
