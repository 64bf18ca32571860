"""Hold the instance of a row, checked as a request's would be."""

from typing import Any

import msgspec

from models.errors import MalformedRequest, RequestError
from models.payload.json_payload import JsonPayloads
from models.registry import find_card
from service.scoring.spec import JobSpec


class Document:
    """Reads the JSON of single instances exactly as the service reads a body with one instance."""

    def __init__(self, spec: JobSpec) -> None:
        card = find_card(spec.family, spec.task)
        self._bodies = JsonPayloads(card, spec.model, max_instances=1)

    def read(self, document: bytes) -> Any:
        """Return the instance.

        Raises:
            HttpError: As of the request with this instance alone.
        """
        try:
            return self._bodies.read(b'{"instances":[%b]}' % document).instances[0]
        except RequestError:
            check_json(document)  # brackets that only close around it
            raise


def check_json(text: bytes) -> None:
    """Let pass what is one JSON value.

    Raises:
        MalformedRequest: If it is not.
    """
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedRequest("not JSON") from error
