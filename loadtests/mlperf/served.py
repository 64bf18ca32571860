"""Ask a running service about its models."""

import http.client
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import click
import msgspec

from loadtests.hosts import HostAddress, read_host
from models.card import AnyCard, Assets
from models.registry import find_card

PATIENCE_SECONDS = 30


class Unmeasurable(click.ClickException):
    """The service cannot be measured; the message says why."""

    exit_code = 3


class ServedScore(msgspec.Struct, frozen=True, kw_only=True):
    """Describe what the certificate says of the test set."""

    metric: str
    unit: str
    test: float
    instances: int


NO_SCORE = ServedScore(metric="none", unit="", test=0.0, instances=0)


class IndexEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One model in the list of models; a stub says less of it."""

    name: str
    version: str
    family: str
    task: str
    digest: str
    data: str = "unknown"
    provider: str = "unknown"
    score: ServedScore = NO_SCORE


class _Index(msgspec.Struct, frozen=True):
    models: list[IndexEntry]


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Describe where a service listens, and the key it wants to see, if any."""

    host: str
    port: int
    key: str = field(default="", repr=False)
    prefix: str = ""

    @classmethod
    def of(cls, url: str, key: str = "") -> "Address":
        """Return the address in a URL; only plain HTTP is measured here.

        Raises:
            click.BadParameter: If it is no such URL.
        """
        try:
            found = read_host(url)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
        if found.scheme != "http":
            raise click.BadParameter(f"only plain HTTP is measured here, got {url!r}")
        return cls(host=found.name, port=found.port, key=key, prefix=found.prefix)

    @property
    def authority(self) -> str:
        """Return the value of the header ``Host``."""
        return HostAddress("http", self.host, self.port, "").authority

    @property
    def headers(self) -> dict[str, str]:
        """Return what every request carries."""
        host = {"host": self.authority, "x-load-test": "1"}
        return host | ({"authorization": f"Bearer {self.key}"} if self.key else {})

    def page(self, path: str) -> bytes:
        """Return a page that must be there.

        Raises:
            Unmeasurable: If it is not.
        """
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE_SECONDS)
        try:
            connection.request("GET", self.prefix + path, headers=self.headers)
            answer = connection.getresponse()
            content = answer.read()
        except OSError as error:
            why = error.strerror or str(error)
            raise Unmeasurable(
                f"nothing answers on {self.host}:{self.port} ({why}); does the service run there?"
            ) from error
        finally:
            connection.close()
        if answer.status != 200:
            raise Unmeasurable(f"GET {self.prefix}{path}: status {answer.status}")
        return content


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUnderTest:
    """One served model, and what is needed to ask it and to judge its answers."""

    address: Address
    entry: IndexEntry
    card: AnyCard
    assets: Assets

    @property
    def path(self) -> str:
        """Return where predictions are asked for."""
        return f"{self.address.prefix}/v1/models/{self.entry.name}/predict"

    def cost(self, instance: Any) -> int:
        """Units of the budget that an instance takes."""
        return self.card.cost(self.card.encode(instance, self.assets))


def find_served(address: Address, wanted: Sequence[str]) -> list[ModelUnderTest]:
    """Return the models asked for (none: all), as the service has them.

    Raises:
        click.BadParameter: If one is not served.
        Unmeasurable: If the service does not answer.
    """
    entries = {entry.name: entry for entry in msgspec.json.decode(address.page("/v1/models"), type=_Index).models}
    if strange := sorted(set(wanted) - set(entries)):
        raise click.BadParameter(f"{', '.join(strange)}: the service has {', '.join(entries)}")
    return [_read(address, entries[name]) for name in wanted or entries]


def _read(address: Address, entry: IndexEntry) -> ModelUnderTest:
    card = find_card(entry.family, entry.task)
    assets: Assets = msgspec.json.decode(address.page(f"/v1/models/{entry.name}/assets"), type=card.assets)
    return ModelUnderTest(address=address, entry=entry, card=card, assets=assets)
