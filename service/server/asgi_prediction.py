"""Answer predictions behind ASGI, as the fast path does: whatever it does not take comes here."""

import asyncio
import logging
from typing import Any

from models.errors import HttpError, MethodNotAllowed
from service.inference.endpoint import Endpoint
from service.inference.gateway import InferenceGateway
from service.inference.request import InferenceRequest
from service.messages.body_memory import too_many_bodies_in_flight
from service.messages.headers import RequestHead
from service.messages.request_body import Disconnected, Receive, read_body
from service.messages.request_id import request_id
from service.oip.metadata_api import check_version
from service.server.asgi_response import Scope, Send, may_be_arriving, put_whole, send_content
from service.server.context import ServerContext
from service.server.prediction import PredictionProtocol, PredictionRoute, begin_prediction

logger = logging.getLogger("lectern.front")


async def predict(
    context: ServerContext,
    route: PredictionRoute,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    version: str | None = None,
) -> None:
    """Answer one prediction, unless its caller leaves before.

    Args:
        context: The server's.
        route: Which model, in which protocol.
        scope: ASGI's, as the next two.
        receive: Brings the body, and says when the caller has gone.
        send: Takes the answer.
        version: The only one that may answer; ``None``: whichever is active.
    """
    found = dict(scope["headers"])
    try:
        endpoint = context.gateway.find(route.model)
        check_version(endpoint, version)
    except HttpError as error:
        await send_content(send, error, request_id(found))
        return
    answered: asyncio.Future[bytes | HttpError] = asyncio.get_running_loop().create_future()
    try:
        if scope["method"] != "POST":
            raise MethodNotAllowed("only POST is allowed here", "POST")
        request, head = begin_prediction(
            context, route.protocol, endpoint, scope["headers"], found, scope.get("client"), answered.set_result
        )
    except HttpError as error:
        await _refuse(route.protocol, endpoint, error, request_id(found), receive, send)
        return
    try:
        await _submit(context.gateway, request, head, receive)
        is_early = answered.done()
        answer = await (answered if is_early else _answer_or_leave(request, answered, receive))
        response = route.protocol.response(request, answer)
        await put_whole(send, response, receive if is_early and may_be_arriving(answer) else None)
    except Disconnected:
        logger.debug("the caller of %s is gone", request.times.request_id.decode())
    finally:
        request.abandon()


async def _submit(gateway: InferenceGateway, request: InferenceRequest, head: RequestHead, receive: Receive) -> None:
    """Read the body and put it to the model; a body that cannot be read ends the request."""
    try:
        if not gateway.body_memory.fits(head.length or 0):
            raise too_many_bodies_in_flight()
        body = await read_body(receive, gateway.body_memory, gateway.settings)
    except HttpError as error:
        request.finish(error)
    else:
        gateway.submit(request, body, head.media_type, head.timeout_seconds)


async def _answer_or_leave(
    request: InferenceRequest, answered: "asyncio.Future[bytes | HttpError]", receive: Receive
) -> bytes | HttpError:
    """Return the answer, unless the caller leaves before; raises ``Disconnected`` then."""

    def leave(_: Any) -> None:
        request.abandon()
        if not answered.done():
            answered.set_exception(Disconnected())

    watch = asyncio.ensure_future(receive())  # which returns when the caller is gone
    watch.add_done_callback(leave)
    try:
        return await answered
    finally:
        watch.cancel()


async def _refuse(
    protocol: PredictionProtocol,
    endpoint: Endpoint,
    error: HttpError,
    request_id: bytes,
    receive: Receive,
    send: Send,
) -> None:
    """Answer a request of which nothing was begun, and count it."""
    error = error.bare()
    endpoint.refuse(error, request_id)
    await put_whole(send, protocol.refusal(error, request_id), receive if may_be_arriving(error) else None)
