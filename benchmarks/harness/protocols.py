"""Describe how a peer is asked: where a body goes, how it is wrapped, and where its predictions come out."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolCall:
    """One HTTP request."""

    path: str
    headers: dict[str, str]
    body: bytes

    def to_bytes(self) -> bytes:
        """Return the whole request, kept alive."""
        lines = [f"POST {self.path} HTTP/1.1", "host: 127.0.0.1", f"content-length: {len(self.body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """The form of a peer's requests and answers.

    Attributes:
        path: With ``{model}`` in it.
        headers: Beside the content type.
        media_type: Instead of the body's own, where the envelope has one.
        wrap: A body in Lectern's form to the peer's.
        unwrap: The peer's answer to predictions.
    """

    path: str = "/v1/models/{model}/predict"
    headers: dict[str, str] = field(default_factory=dict)
    media_type: str | None = None
    wrap: Callable[[bytes], bytes] = lambda body: body
    unwrap: Callable[[bytes], Any] = lambda answer: json.loads(answer)["predictions"]

    def call(self, model: str, body: bytes, media_type: str = JSON) -> ProtocolCall:
        """Return the request that asks a model."""
        headers = {"content-type": self.media_type or media_type, **self.headers}
        return ProtocolCall(path=self.path.format(model=model), headers=headers, body=self.wrap(body))


def _into_v2(body: bytes) -> bytes:
    tensor = {"name": "body", "shape": [1, 1], "datatype": "BYTES", "data": [body.decode()]}
    return json.dumps({"inputs": [tensor]}).encode()


def _out_of_v2(answer: bytes) -> Any:
    return json.loads(json.loads(answer)["outputs"][0]["data"][0])["predictions"]


def _out_of_binary(answer: bytes) -> Any:
    """Return the one element behind the JSON head, whose length stands in four bytes before it."""
    _, end = json.JSONDecoder().raw_decode(answer.decode("latin-1"))
    return json.loads(answer[end + 4 :])["predictions"]


PLAIN = Envelope()
BARE = Envelope(unwrap=json.loads)
TRITON = Envelope(
    path="/v2/models/{model}/infer",
    headers={"inference-header-content-length": "0"},
    media_type="application/octet-stream",
    unwrap=_out_of_binary,
)
V2 = Envelope(path="/v2/models/{model}/infer", wrap=_into_v2, unwrap=_out_of_v2)
