"""Where the seconds of a stage go: to priors, to the rasteriser, to the rest."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Clock:
    """Seconds by name. "prior" and "raster" are what the rest is compared with."""

    spent: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        """Add the body's seconds to `name`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.spent[name] = self.spent.get(name, 0.0) + time.perf_counter() - began

    def share_outside(self) -> float:
        """Share of "step" that is spent neither in priors nor in the rasteriser."""
        whole = self.spent.get("step", 0.0)
        return 1 - (self.spent.get("prior", 0.0) + self.spent.get("raster", 0.0)) / whole if whole else 0.0
