"""Options that `compose` and `compose plan` share: who directs, which libraries, which licences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from orbit4d.compose.director.chat import ChatSettings
from orbit4d.compose.library.catalogue import Library
from orbit4d.compose.library.retrieval import Encoder
from orbit4d.datasets.core.errors import InputError

CHAT = ChatSettings()
ENCODER = click.option(
    "--encoder",
    default="",
    help="Adds sentence vectors to the search: all-MiniLM-L6-v2, or a folder of such a model.",
)


def directing(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of the director."""
    for option in reversed(
        (
            click.option(
                "--director",
                default="rules",
                show_default=True,
                help="rules, chat, chat,rules or recorded:FILE.",
            ),
            click.option("--chat-url", default="", help="OpenAI-compatible endpoint, as https://host/v1."),
            click.option("--chat-model", default="", help="Model, as the endpoint names it."),
            click.option(
                "--chat-timeout",
                type=float,
                default=CHAT.timeout,
                show_default=True,
                help="Seconds a request.",
            ),
            click.option(
                "--chat-repairs",
                type=int,
                default=CHAT.repairs,
                show_default=True,
                help="Times that an invalid reply goes back.",
            ),
        )
    ):
        command = option(command)
    return command


def chat_settings(url: str, model: str, timeout: float, repairs: int, seed: int) -> ChatSettings:
    return ChatSettings(url, model, timeout, repairs, seed)


def encoder_of(spec: str) -> Encoder | None:
    """The encoder of --encoder, None where it is not given. Raises InputError."""
    if not spec:
        return None
    from orbit4d.compose.library.sentences import sentence_encoder

    return sentence_encoder(spec)


def open_libraries(libraries: tuple[str, ...], licences: str) -> Library:
    """The libraries as one, without what the licences leave out. Raises InputError."""
    if not libraries:
        raise InputError("--library: name at least one dataset, folder of assets or actions.csv")
    found = Library.from_sources(*libraries)
    kept = found.keep_licences([part for part in licences.split(",") if part.strip()])
    if not kept.entries:
        lost = ", ".join(f"{n} under {name}" for name, n in sorted(kept.dropped.items()))
        raise InputError(
            f"--license {licences or '(default)'}: leaves no asset of {len(found.uids)} ({lost[:120]}); "
            "name one of these"
        )
    return kept
