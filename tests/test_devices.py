"""The suite on a machine with a GPU: it is hidden from every test but those that ask for it."""

from __future__ import annotations

import textwrap

import pytest

pytest_plugins = ["pytester"]

CONFTEST = """
    import importlib.util, sys, torch
    torch.cuda.is_available = lambda: True
    spec = importlib.util.spec_from_file_location("devices", {path!r})
    devices = sys.modules["devices"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(devices)

    def pytest_configure(config):
        config.addinivalue_line("markers", "gpu: ")
        config.pluginmanager.register(devices.Hidden())
"""
TESTS = """
    import os, pytest, torch
    SEEN = torch.cuda.is_available()

    @pytest.fixture(scope="module")
    def early():
        return torch.cuda.is_available()

    def test_hidden(early):
        assert SEEN and not early and not torch.cuda.is_available()
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""

    @pytest.mark.gpu
    def test_seen():
        assert torch.cuda.is_available() and os.environ.get("CUDA_VISIBLE_DEVICES") == "1"

    def test_hidden_again():
        assert not torch.cuda.is_available()
"""


def test_only_marked_tests_see_a_gpu(pytester: pytest.Pytester, repo_root, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    path = str(repo_root / "tests" / "devices.py")
    pytester.makeconftest(textwrap.dedent(CONFTEST).format(path=path))
    pytester.makepyfile(textwrap.dedent(TESTS))
    pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider").assert_outcomes(passed=3)
