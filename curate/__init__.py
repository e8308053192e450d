"""Curation: measure assets once, decide by named rules in a second, report.

Names are loaded on first use, so that `import orbit4d.curate` stays light.
"""

from __future__ import annotations

from orbit4d.datasets.core.lazy import lazy_names

_HOMES = {
    "MeasureSettings": "measuring",
    "PRESETS": "rules",
    "Rules": "rules",
    "decide": "rules",
    "make_rules": "rules",
    "measure": "measuring",
    "write_report": "report.page",
}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
