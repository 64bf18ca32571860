"""Load that its sender marks as such: answered, counted and timed like any other, but no sign of what callers ask.

What is marked is kept out of the drift windows and out of the requests that a new version is tried on. So it takes a
key with the role ``load-test``; where nobody needs a key, it takes a connection from this machine. From anybody else
the mark is ignored: the request is answered and compared with the training data as ever.
"""

from functools import lru_cache
from ipaddress import ip_address

from service.auth.access import Access, Client
from service.auth.api_keys import LOAD_TEST
from service.messages.headers import Header

NAME, VALUE = b"x-load-test", b"1"


def is_load_test(access: Access | None, headers: list[Header], found: dict[bytes, bytes], client: Client) -> bool:
    """Return whether a request that was let in is marked as load by somebody who may.

    Args:
        access: Who may ask, where not everybody may.
        headers: Lower-case names and values, in order.
        found: The same by name.
        client: The connection's other end.
    """
    if found.get(NAME) != VALUE:
        return False
    if access is not None and access.has_keys:
        caller = access.caller(headers)
        return caller is not None and bool(caller.roles & LOAD_TEST)
    return client is not None and _is_loopback(client[0])


@lru_cache(maxsize=64)
def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
