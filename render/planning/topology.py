"""What the pass `geometry` asks of an asset, and why it may be refused while its images are rendered."""

from __future__ import annotations

#: Triangles with all instances that an action may have.
MAX_TRIANGLES = 2_000_000
#: Objects, instances and joints that an action may have: they are numbered in 16 bits.
MAX_NUMBERS = 60_000


class RefusedPass(Exception):
    """A pass that is not made for an action. `code` is a reason code such as `geometry:topology`."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail
