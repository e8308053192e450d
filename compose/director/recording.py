"""Every request that was answered, so that a run can be replayed without a network."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orbit4d.compose.strict_json import NotJson, canonical_json, parse_json, printable
from orbit4d.datasets.core.atomic import write_bytes
from orbit4d.datasets.core.errors import InputError

_FIELDS = ("key", "step", "request", "reply", "model", "seconds")
_MAX_LINE = 4 << 20


def key_of(request: dict[str, Any]) -> str:
    """SHA-256 hex of a request's canonical JSON, in which images are hashes and no key or URL stands."""
    return hashlib.sha256(canonical_json(request).encode("utf-8")).hexdigest()


def image_stand_in(image: Any) -> dict[str, Any]:
    """What stands for an image [H, W, 3] uint8 in a recorded request: the hash of its RGB bytes."""
    height, width = image.shape[:2]
    digest = hashlib.sha256(image[..., :3].astype("uint8").tobytes()).hexdigest()
    return {"image_sha256": digest, "w": int(width), "h": int(height)}


@dataclass
class Recording:
    """Replies by key; with `path` each new one is written to it as a line."""

    path: Path | None = None
    replies: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, step: str, request: dict[str, Any], reply: str, model: str, seconds: float) -> None:
        key = key_of(request)
        line = {
            "key": key,
            "step": step,
            "request": request,
            "reply": reply,
            "model": model,
            "seconds": round(seconds, 3),
        }
        if key in self.replies:
            return
        self.replies[key] = line
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(canonical_json(line) + "\n")

    def forget(self, keys: Collection[str]) -> None:
        """Drop the replies of these keys, from the file too."""
        self.replies = {key: line for key, line in self.replies.items() if key not in keys}
        if self.path is not None and self.path.is_file():
            text = "".join(canonical_json(line) + "\n" for line in self.replies.values())
            write_bytes(self.path, text.encode("utf-8"))

    def reply(self, step: str, request: dict[str, Any]) -> str:
        """The recorded reply. Raises InputError that names the step and the key."""
        key = key_of(request)
        if key not in self.replies:
            raise InputError(
                f"recorded: no reply for step {step}, key {key[:12]}; record this prompt with "
                "--director chat (images differ with the number of threads)"
            )
        return str(self.replies[key]["reply"])

    @property
    def model(self) -> str:
        """The model that the replies are of, '' where there are none."""
        return next((str(line["model"]) for line in self.replies.values()), "")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recording:
        """Read replies.jsonl. Raises InputError that names the line."""
        try:
            lines = Path(path).read_bytes().decode("utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path}: is no UTF-8 text at byte {error.start}; give a replies.jsonl"
            ) from None
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}; give the replies.jsonl of a run") from None
        replies: dict[str, dict[str, Any]] = {}
        for number, text in enumerate(lines, start=1):
            if not text.strip():
                continue
            line = _line(text, f"{path}:{number}")
            if (known := replies.get(line["key"])) is not None and known["reply"] != line["reply"]:
                raise InputError(
                    f"{path}:{number}: a second reply for key {line['key'][:12]}; keep one of them"
                )
            replies[line["key"]] = line
        if not replies:
            raise InputError(f"{path}: holds no replies; give the replies.jsonl of a run")
        return cls(None, replies)


def _line(text: str, where: str) -> dict[str, Any]:
    try:
        line = parse_json(text, max_bytes=_MAX_LINE, max_depth=64)
    except NotJson as error:
        raise InputError(f"{where}: {error}; give the replies.jsonl of a run") from None
    if not isinstance(line, dict) or any(name not in line for name in _FIELDS):
        raise InputError(f"{where}: needs the keys {', '.join(_FIELDS)}; give the replies.jsonl of a run")
    if not isinstance(line["key"], str) or not isinstance(line["reply"], str):
        raise InputError(f"{where}: key and reply are texts; give the replies.jsonl of a run")
    if not isinstance(line["request"], dict) or key_of(line["request"]) != line["key"]:
        raise InputError(
            f"{where}: key {printable(line['key'], 12)} is not that of its request; record again"
        )
    return line
