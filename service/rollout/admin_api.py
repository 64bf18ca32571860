"""Answer an operator: list versions, activate one, roll back to the last one."""

import asyncio
import re
from typing import Annotated, Any

import bentoml
import msgspec
from msgspec import Meta

from models.errors import MethodNotAllowed
from models.payload.json_payload import from_decoding, to_json
from service.rollout.rollout import Rollout, overview

ROUTE = re.compile(r"/v1/admin/models(?:/([a-z][a-z0-9-]{0,39})/(activate|rollback))?")


class Activation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``activate``."""

    version: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$", description="Of the model store.")]
    max_changed: Annotated[
        float,
        Meta(ge=0, le=1, description="Refuse a version that answers a larger part of the recent requests otherwise."),
    ] = 1.0


async def administer(versions: Rollout, method: str, route: "re.Match[str]", body: bytes) -> bytes:
    """Return the JSON answer to one request whose caller may make it.

    Args:
        versions: Of this process.
        method: Of the request.
        route: ``ROUTE`` matched with its path.
        body: All of it.

    Raises:
        RequestError: If the caller can mend it.
    """
    model, verb = route.groups()
    allowed = "POST" if verb else "GET"
    if method != allowed:
        raise MethodNotAllowed(f"only {allowed} is allowed here", allowed)
    if verb is None:
        stored = await asyncio.to_thread(stored_versions, list(versions.gateway.endpoints))
        return to_json(overview(versions.gateway, stored))
    if verb == "rollback":
        return msgspec.json.encode(await versions.roll_back(model))
    try:
        asked = msgspec.json.decode(body, type=Activation)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise from_decoding(error) from error
    return msgspec.json.encode(await versions.activate(model, asked.version, asked.max_changed))


def stored_versions(names: list[str]) -> dict[str, Any]:
    """Return the versions in the model store, by model, in the order they were put there."""
    found: dict[str, Any] = {name: [] for name in names}
    for model in sorted(bentoml.models.list(), key=lambda model: model.info.creation_time):
        if model.tag.name in found:
            found[model.tag.name].append(model.tag.version)
    return found
