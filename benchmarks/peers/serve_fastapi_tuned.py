# /// script
# dependencies = ["fastapi==0.165.0", "starlette==1.10.0", "uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0",
#   "pydantic==2.14.3", "numpy==2.4.6"]
# ///
"""FastAPI as an expert writes it: the raw request, our codec and the model on the event loop, one run per request.

``python -m benchmarks.peers.serve_fastapi_tuned PORT``
"""

import uvicorn
from fastapi import FastAPI, Request, Response

from benchmarks.peers import read_ports
from benchmarks.peers.codec import MODELS, open_codec
from models.errors import HttpError

app = FastAPI()
codecs = {model: open_codec(model) for model in MODELS}


@app.post("/v1/models/{model}/predict")
async def predict(model: str, request: Request) -> Response:
    """Return the answer of one model."""
    try:
        answer = codecs[model].reply(await request.body())
    except HttpError as error:
        return Response(str(error), error.status)
    return Response(answer, media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=read_ports(__doc__, "port")[0], log_level="warning", access_log=False)
