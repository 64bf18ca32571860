"""Where the service cannot listen is told before it starts, as it would stand in a URL."""

import socket
from typing import Any

import pytest

from models.errors import SettingsError
from service.settings import Settings
from service.settings.address import find_address


@pytest.fixture
def taken() -> Any:
    """A port on which somebody listens."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def address_of(host: str, port: int) -> str:
    """Return where the service would listen."""
    return find_address(Settings(host=host, port=port))


def test_taken(taken: int) -> None:
    """A port that is taken is one line."""
    with pytest.raises(SettingsError) as caught:
        address_of("127.0.0.1", taken)
    assert str(caught.value) == f"cannot listen on 127.0.0.1:{taken}: Address already in use"


def test_taken_on_ipv6() -> None:
    """An address of IPv6 is told in brackets."""
    with socket.socket(socket.AF_INET6) as other:
        try:
            other.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6 loopback, ::1")
        other.listen()
        with pytest.raises(SettingsError) as caught:
            address_of("::1", other.getsockname()[1])
        assert str(caught.value) == f"cannot listen on [::1]:{other.getsockname()[1]}: Address already in use"


@pytest.mark.parametrize("host", ["no.such.name.invalid", "a" * 300, "1.2.3.4.5", "[::1]", "::g", "http://x"])
def test_no_address(host: str) -> None:
    """What is no address and no name here is named with its setting."""
    with pytest.raises(SettingsError) as caught:
        address_of(host, 3000)
    assert str(caught.value).startswith("cannot listen on ")


def test_elsewhere() -> None:
    """Nobody listens on an address of another machine."""
    with pytest.raises(SettingsError) as caught:
        address_of("192.0.2.1", 3000)
    assert str(caught.value) == "cannot listen on 192.0.2.1:3000: Cannot assign requested address"
