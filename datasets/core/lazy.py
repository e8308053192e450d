"""Public names from one list, the stub `__init__.pyi` beside a package's `__init__.py`.

Type checkers and editors read the stub; at run time `attach` reads the same file and imports a name's module
on first use (PEP 562), so importing a package costs nothing and no second list can fall out of step.
scikit-image's lazy_loader reads stubs in the same way.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def attach(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Lazy `__getattr__`, `__dir__` and `__all__` of a package, from the stub beside its `__init__.py`.

    Args:
        package: the package's `__name__`.
        file: its `__file__`; the stub is this name with an "i" after it.

    Raises:
        ImportError: the stub holds anything but `from orbit4d.module import Name as Name`.
    """
    homes = _homes(file + "i")

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(homes[name]), name)
        vars(sys.modules[package])[name] = value
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return load, names, sorted(homes)


def _homes(stub: str) -> dict[str, str]:
    """Name -> the module that defines it."""
    with open(stub, encoding="utf-8") as text:
        tree = ast.parse(text.read(), stub)
    homes: dict[str, str] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue  # a docstring
        if (
            not isinstance(statement, ast.ImportFrom)
            or not statement.module
            or statement.level != 0
            or any(alias.asname != alias.name for alias in statement.names)
        ):
            raise ImportError(
                f"{stub}:{statement.lineno}: a stub of public names holds only "
                "`from orbit4d.module import Name as Name`"
            )
        homes.update({alias.name: statement.module for alias in statement.names})
    return homes
