"""What all tests share: fixed seeds, and no path out of this machine."""

import socket

import pytest


@pytest.fixture(autouse=True)
def _seeded():
    """Give torch's own random numbers a fixed start, where a test has loaded torch."""
    import sys

    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    """Refuse every connection that leaves this machine."""
    connect = socket.socket.connect

    def guarded(self, address):
        host = address[0] if isinstance(address, tuple) else "localhost"
        assert host in {"127.0.0.1", "::1", "localhost"}, f"a test wants to reach {host}"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
