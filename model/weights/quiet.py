"""Loading without the libraries' chatter: no bars, and of their warnings those that weights are missing."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

#: Words of warnings that say something of the weights: these are let through.
ABOUT_WEIGHTS = ("initialized", "missing", "mismatch", "unexpected")


def of_weights(record: logging.LogRecord) -> bool:
    """Whether a record of a library is an error, or a warning about weights."""
    said = record.getMessage().lower()
    return record.levelno >= logging.ERROR or any(word in said for word in ABOUT_WEIGHTS)


@contextmanager
def quiet() -> Iterator[None]:
    """diffusers and transformers draw no bars, and warn of weights alone, while a model is loaded."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    with ExitStack() as stack:
        for name, library in (("diffusers", of_diffusers), ("transformers", of_transformers)):
            library.get_verbosity()  # sets the handler up
            stack.enter_context(_without_bars(library))
            for handler in logging.getLogger(name).handlers:
                handler.addFilter(of_weights)
                stack.callback(handler.removeFilter, of_weights)
        yield


@contextmanager
def _without_bars(library: Any) -> Iterator[None]:
    shown = library.is_progress_bar_enabled()
    library.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            library.enable_progress_bar()
