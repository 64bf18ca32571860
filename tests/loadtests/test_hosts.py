import pytest

from loadtests.hosts import read_host
from loadtests.mlperf.served import Address
from loadtests.wire import HttpClient


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
        ("127.0.0.1:3000", "http://127.0.0.1:3000"),
        ("localhost", "http://localhost:80"),
        ("localhost:3000/", "http://localhost:3000"),
        ("http://a.example:3000/prefix/", "http://a.example:3000/prefix"),
        ("a.example/deep/prefix", "http://a.example:80/deep/prefix"),
        ("https://a.example", "https://a.example:443"),
        ("[::1]:3000", "http://[::1]:3000"),
        ("HTTP://[2001:db8::1]/", "http://[2001:db8::1]:80"),
    ],
)
def test_addresses_are_read_as_people_type_them(typed: str, url: str) -> None:
    """Without a scheme it is http; slashes at the end are no path; a whole address stays as it is."""
    assert read_host(typed).url == url
    assert read_host(url).url == url


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "http://",
        ":3000",
        "ftp://a:1",
        "http://a:port",
        "a:99999",
        "a:0",
        "http://user:pw@a",
        "a b",
        "http://a/?x=1",
        "a#b",
        "http://[::1",
    ],
)
def test_what_is_no_address_is_refused_in_one_sentence(typed: str) -> None:
    """The sentence says what is allowed and what was found."""
    with pytest.raises(ValueError, match=r"the host must be \[http\[s\]://\]HOST") as refusal:
        read_host(typed)
    assert "\n" not in str(refusal.value)


def test_a_path_is_asked_below() -> None:
    """By the load tests and by MLPerf: a service behind a proxy has a prefix."""
    assert HttpClient("127.0.0.1:3000/prefix/").request("/metrics").startswith(b"GET /prefix/metrics HTTP/1.1\r\n")
    assert HttpClient("http://a/p").request("/v1", b"{}").startswith(b"POST /p/v1 HTTP/1.1\r\nhost: a:80\r\n")
    address = Address.of("127.0.0.1:3000/prefix/")
    assert (address.host, address.port, address.prefix) == ("127.0.0.1", 3000, "/prefix")


def test_an_ipv6_address_is_named_in_brackets() -> None:
    """In the header ``Host``."""
    assert b"\r\nhost: [::1]:3000\r\n" in HttpClient("[::1]:3000").request("/x")
    assert Address.of("[::1]:3000").headers["host"] == "[::1]:3000"
