"""Curation: measure assets once, decide by named rules in a second, report.

Names are loaded on first use, so that `import orbit4d.curate` stays light.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "MeasureSettings": "measuring",
    "PRESETS": "rules",
    "Rules": "rules",
    "decide": "rules",
    "make_rules": "rules",
    "measure": "measuring",
    "write_report": "report",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"orbit4d.curate.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
