"""Ctrl-C and SIGTERM as a request, in both ways of taking the second one."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import pytest

from orbit4d.datasets.commands import interrupt
from orbit4d.datasets.commands.interrupt import stop_request


def interrupted(number: int = signal.SIGINT) -> bool:
    """Whether a signal to this process raises KeyboardInterrupt."""
    try:
        os.kill(os.getpid(), number)
        time.sleep(0.01)  # the handler runs between two instructions
    except KeyboardInterrupt:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_has_its_usual_effect(number: int) -> None:
    came: list[int] = []
    before = signal.signal(number, lambda kind, frame: came.append(kind))
    try:
        with stop_request("usual") as stop:
            assert not stop.is_set()
            assert not interrupted(number) and stop.is_set() and came == []
            assert not interrupted(number) and came == [number]
    finally:
        signal.signal(number, before)


def test_a_signal_that_a_launcher_passes_on_is_no_second_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    with stop_request("interrupt") as stop:
        assert [interrupted(), interrupted(), stop.is_set()] == [False, False, True]
        monkeypatch.setattr(interrupt, "ECHO_SECONDS", 0.0)
        assert interrupted(), "and a later one is"
        assert interrupted(signal.SIGTERM)


@pytest.mark.parametrize("second", ["usual", "interrupt"])
def test_handlers_are_put_back(second: Any) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    with pytest.raises(ZeroDivisionError), stop_request(second):
        assert [signal.getsignal(number) for number in numbers] != before
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in numbers] == before


def test_another_thread_catches_nothing() -> None:
    found = []
    before = signal.getsignal(signal.SIGINT)

    def work() -> None:
        with stop_request("interrupt") as stop:
            found.append((stop.is_set(), signal.getsignal(signal.SIGINT) is before))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(False, True)]
