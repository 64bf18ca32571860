# /// script
# dependencies = ["fastapi==0.165.0", "starlette==1.10.0", "uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0",
#   "pydantic==2.14.3", "numpy==2.4.6"]
# ///
"""FastAPI as its tutorial writes it: a pydantic body, a plain ``def`` endpoint in the thread pool, one run per request.

``python -m benchmarks.peers.serve_fastapi PORT``. pydantic checks types and bounds where Lectern's reader would; the
rest is Lectern's codec. Lectern's writer makes the answer: kinder than ``tolist()`` and FastAPI's own encoder.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Generic, TypeVar

import uvicorn
from fastapi import FastAPI, HTTPException, Response
from pydantic import Base64Bytes, BaseModel, ConfigDict, Field

from benchmarks.peers import read_ports
from benchmarks.peers.codec import MAX_INSTANCES, MODELS, Codec, open_codec
from models.errors import HttpError
from models.graph.citation_schema import Instance, NewPaper

app = FastAPI()
codecs = {model: open_codec(model) for model in MODELS}
InstanceT = TypeVar("InstanceT")
Id = Annotated[int, Field(ge=0)]


class Strict(BaseModel):
    """Refuses unknown fields, as Lectern does."""

    model_config = ConfigDict(extra="forbid")


class Body(Strict, Generic[InstanceT]):
    """The body of a request."""

    instances: Annotated[list[InstanceT], Field(min_length=1, max_length=MAX_INSTANCES)]


class Channel(Strict):
    """Describe what ``viewcount`` predicts on."""

    views: Annotated[list[Annotated[float, Field(ge=0, le=1e9)]], Field(min_length=56, max_length=3660)]
    horizon: Annotated[int, Field(ge=1, le=28)] = 7


class SentenceBody(Strict):
    """Describe what ``tagging`` predicts on."""

    text: Annotated[str, Field(max_length=20_000)] = ""
    tokens: list[str] = []


class PictureBody(Strict):
    """Describe what ``image`` and ``image-vit`` predict on."""

    image: Base64Bytes = b""
    pixels: Annotated[list[list[Annotated[int, Field(ge=0, le=255)]]], Field(max_length=4096)] = []


class Paper(Strict):
    """A paper that the resident graph does not have."""

    words: list[Id]
    cites: list[Id] = []


class Papers(Strict):
    """Describe what ``citation`` predicts on."""

    new: Annotated[list[Paper], Field(min_length=1)]


class Molecule(Strict):
    """Describe what ``molecule`` predicts on."""

    atoms: Annotated[list[str], Field(min_length=1)]
    bonds: list[tuple[Id, Id]] = []


def convert(kind: Any, one: BaseModel) -> Any:
    """Return the same fields in Lectern's own type."""
    return kind(**{name: getattr(one, name) for name in one.model_fields_set})


def answer(model: str, instances: Sequence[BaseModel]) -> Response:
    """Return the answer of one model."""
    codec = codecs[model]
    kind = codec.predictor.card.instance
    return reply(codec, [convert(kind, one) for one in instances])


def reply(codec: Codec, instances: Sequence[Any]) -> Response:
    """Return the answer to converted instances."""
    try:
        predictions = codec.answer([codec.encode(instances)])[0]
    except HttpError as error:
        raise HTTPException(error.status, str(error)) from error
    return Response(codec.write(predictions), media_type="application/json")


@app.post("/v1/models/viewcount/predict")
def viewcount(body: Body[Channel]) -> Response:
    """Forecasts."""
    return answer("viewcount", body.instances)


@app.post("/v1/models/tagging/predict")
def tagging(body: Body[SentenceBody]) -> Response:
    """Tags."""
    return answer("tagging", body.instances)


@app.post("/v1/models/image/predict")
def image(body: Body[PictureBody]) -> Response:
    """Classes of pictures."""
    return answer("image", body.instances)


@app.post("/v1/models/image-vit/predict")
def image_vit(body: Body[PictureBody]) -> Response:
    """Classes of pictures by the transformer."""
    return answer("image-vit", body.instances)


@app.post("/v1/models/citation/predict")
def citation(body: Body[Papers]) -> Response:
    """Topics of papers."""
    instances = [Instance(new=[convert(NewPaper, paper) for paper in one.new]) for one in body.instances]
    return reply(codecs["citation"], instances)


@app.post("/v1/models/molecule/predict")
def molecule(body: Body[Molecule]) -> Response:
    """Classes of molecules."""
    return answer("molecule", body.instances)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=read_ports(__doc__, "port")[0], log_level="warning", access_log=False)
