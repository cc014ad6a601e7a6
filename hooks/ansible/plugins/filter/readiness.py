# Copyright the venvguard maintainers
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from ansible_collections.venvguard.venvguard.plugins.module_utils import readiness, readiness_page


class FilterModule:
    """The report of the playbook `readiness`, and the comparison of the playbook `upgrade`."""

    def filters(self):
        return {
            "readiness": readiness.report,
            "readiness_page": readiness_page.page,
            "missing_wheels": readiness.missing_wheels,
            "not_as_before": readiness.not_as_before,
        }
