"""The outermost ASGI layer: a closed set of routes, limits, error bodies, and the answers themselves.

BentoML's own middlewares never see a prediction: they cost twenty times what the rest does, and label their metrics
with whatever path was asked for. What this layer does not answer and does not know never gets past it.
"""

import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any, TypeAlias

from models.errors import Draining, HttpError, MethodNotAllowed, UnknownRoute
from models.payload.json_payload import to_json
from service.demo.pages import DemoPages
from service.inference.gateway import InferenceGateway
from service.jobs.api import ROUTE as JOBS_ROUTE
from service.jobs.api import JobsApi
from service.jobs.download import Download
from service.messages.request_body import Disconnected, Receive, read_body
from service.messages.request_id import request_id
from service.messages.response import JSON
from service.oip.metadata_api import INFER_ROUTE, MetadataApi
from service.rollout.admin_api import ROUTE as ADMIN_ROUTE
from service.rollout.admin_api import administer
from service.rollout.rollout import Rollout
from service.server.asgi_prediction import predict
from service.server.asgi_response import Scope, Send, counted, put_whole, send_content
from service.server.context import ServerContext
from service.server.openapi import assets_page, card_page, docs_page, index, openapi
from service.server.prediction import OIP, REST, PredictionRoute
from service.server.scrape import scrape
from service.telemetry.exposition import MetricsPage

logger = logging.getLogger("lectern.front")

App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

BENTOML_ROUTES = frozenset(("/healthz", "/livez", "/readyz", "/metrics", "/schema.json"))
# What the documentation page loads, and no other name: each path that BentoML sees is a series in its metrics.
STATIC_FILES = frozenset(
    f"/static_content/{name}" for name in ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-light-32x32.png")
)
MODEL_ROUTE = re.compile(r"/v1/models/([a-z][a-z0-9-]{0,39})(/predict|/assets)?")
PREDICTION_ROUTE = re.compile(r"/v[12]/models/([a-z][a-z0-9-]{0,39})/(?:versions/[^/]*/)?(?:predict|infer)")


class Application:
    """Answers Lectern's routes itself and lets BentoML's health, metrics and schema through."""

    def __init__(
        self,
        app: App,
        context: Callable[[], ServerContext],
        versions: Callable[[], Rollout] | None = None,
        jobs: Callable[[], JobsApi | None] = lambda: None,
        metrics: MetricsPage | None = None,
        demo: DemoPages | None = None,
    ) -> None:
        self.app, self.context, self.versions, self.jobs, self.metrics = app, context, versions, jobs, metrics
        self.demo = demo
        self._made_of: list[tuple[str, str]] = []
        self._pages: dict[str, tuple[bytes, bytes]] = {}

    @property
    def gateway(self) -> InferenceGateway:
        """Answers predictions."""
        return self.context().gateway

    @property
    def has_admin(self) -> bool:
        """Return whether the operator's routes are there: only where a key says who may use them."""
        access = self.context().access
        return self.versions is not None and access is not None and access.has_admin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call; never raises for an HTTP request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        send = counted(send, self.context().responses)
        if self.demo is not None and scope["path"] in self.demo:
            await self.demo.answer(scope, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self._route(scope, receive, send, scope["path"])
        else:
            identity = request_id(dict(scope["headers"]))
            self._note(scope["path"], refusal, identity)
            await send_content(send, refusal, identity, receive=receive)

    def _refusal(self, scope: Scope) -> HttpError | None:
        """Return why this caller may not ask this now; what the service has or has not is of no matter yet."""
        access = self.context().access
        return None if access is None else access.refuse(scope["path"], scope["headers"], scope.get("client"))

    def _note(self, path: str, error: HttpError, identity: bytes) -> None:
        """Count who was refused a prediction."""
        match, endpoints = PREDICTION_ROUTE.fullmatch(path), self.gateway.endpoints
        if match is not None and match[1] in endpoints:
            endpoints[match[1]].refuse(error, identity)

    async def _route(self, scope: Scope, receive: Receive, send: Send, path: str) -> None:
        match = MODEL_ROUTE.fullmatch(path)
        if match is not None and match[2] == "/predict":
            await predict(self.context(), PredictionRoute(match[1], REST), scope, receive, send)
        elif path.startswith("/v2"):
            await self._infer(scope, receive, send, path)
        elif (admin := ADMIN_ROUTE.fullmatch(path)) is not None and self.has_admin:
            answer = partial(administer, self._versions(), scope["method"], admin)
            await self._administer(scope, receive, send, answer)
        elif (route := JOBS_ROUTE.fullmatch(path)) is not None and (jobs := self.jobs()) is not None:
            await self._attend(scope, receive, send, jobs, route)
        elif path not in BENTOML_ROUTES and path not in STATIC_FILES:
            await self._show(scope, send, match)
        elif path == "/readyz" and self.gateway.is_draining:
            await send_content(send, Draining("the service is stopping"), request_id(dict(scope["headers"])))
        elif scope["method"] in ("GET", "HEAD"):
            await self._let_through(scope, receive, send, path)
        else:
            error = MethodNotAllowed("only GET is allowed here", "GET, HEAD")
            await send_content(send, error, request_id(dict(scope["headers"])))

    async def _let_through(self, scope: Scope, receive: Receive, send: Send, path: str) -> None:
        """To BentoML; but its page of metrics takes seconds under load."""
        if path != "/metrics" or self.metrics is None:
            await self.app(scope, receive, send)
            return
        headers = scope["headers"]
        answer = scrape(self.metrics, self.gateway.windows, headers, request_id(dict(headers)))
        await put_whole(send, answer._replace(body=b"") if scope["method"] == "HEAD" else answer)

    def _versions(self) -> Rollout:
        assert self.versions is not None  # the routes that change them are closed without them
        return self.versions()

    async def _infer(self, scope: Scope, receive: Receive, send: Send, path: str) -> None:
        """Answer a request of the Open Inference Protocol."""
        if (match := INFER_ROUTE.fullmatch(path)) is not None:
            route = PredictionRoute(match[1], OIP)
            await predict(self.context(), route, scope, receive, send, version=match[2])
        elif path == "/v2/health/ready":
            ready = {**scope, "path": "/readyz", "raw_path": b"/readyz"}
            await self._route(ready, receive, send, "/readyz")
        else:
            versions = self._versions() if self.has_admin else None
            pages = MetadataApi(self.gateway, versions, self.metrics)
            await self._administer(scope, receive, send, partial(pages.answer, scope["method"], path))

    async def _administer(
        self, scope: Scope, receive: Receive, send: Send, answer: Callable[[bytes], Awaitable[bytes]]
    ) -> None:
        identity = request_id(dict(scope["headers"]))
        content: bytes | HttpError
        try:
            content = await answer(await read_body(receive, self.gateway.body_memory, self.gateway.settings))
        except Disconnected:
            return
        except HttpError as error:
            content = error.bare()
        except Exception:  # the process border, as in ``InferenceRequest.finish``
            logger.exception("request %s failed", identity.decode())
            content = HttpError("internal error")
        await send_content(send, content, identity)

    async def _attend(self, scope: Scope, receive: Receive, send: Send, jobs: JobsApi, route: re.Match[str]) -> None:
        identity, has_begun = request_id(dict(scope["headers"])), False

        async def put(message: MutableMapping[str, Any]) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            answer = await jobs.answer(scope, receive, route)
            if isinstance(answer, Download):
                await answer.send(receive, put, identity)
            else:
                await put_whole(put, answer)
        except Disconnected:
            logger.debug("the caller of %s is gone", identity.decode())
        except HttpError as error:
            await send_content(send, error, identity, receive=receive)
        except Exception:  # the process border, as in ``InferenceRequest.finish``
            told = {"event": "request_failed", "request_id": identity.decode()}
            logger.exception("request %s failed", identity.decode(), extra=told)
            if has_begun:
                raise  # the server cuts the connection: what the caller has is not whole
            await send_content(send, HttpError("internal error"), identity)

    async def _show(self, scope: Scope, send: Send, match: re.Match[str] | None) -> None:
        content: bytes | HttpError
        media_type, identity = JSON, request_id(dict(scope["headers"]))
        try:
            media_type, content = self._page(scope, match)
        except HttpError as error:
            content = error
        except Exception:  # the process border, as in ``InferenceRequest.finish``
            told = {"event": "page_failed", "request_id": identity.decode()}
            logger.exception("page %s failed", identity.decode(), extra=told)
            content = HttpError("internal error")
        await send_content(send, content, identity, media_type)

    def _page(self, scope: Scope, match: re.Match[str] | None) -> tuple[bytes, bytes]:
        """Return a page about the service; ``match`` is the path when it names a model.

        Raises:
            UnknownRoute: If there is none at this path.
            UnknownModel: If the model is not served.
            MethodNotAllowed: If the method is not GET.
        """
        context, gateway = self.context(), self.gateway
        pages: dict[str, Callable[[], tuple[bytes, bytes]]] = {
            "/": lambda: (b"text/html; charset=utf-8", docs_page()),
            "/docs.json": lambda: (JSON, to_json(openapi(gateway, context.access, has_jobs=self.jobs() is not None))),
            "/v1/models": lambda: (JSON, to_json(index(gateway))),
        }
        if match is not None:
            endpoint, describe = gateway.find(match[1]), assets_page if match[2] else card_page
            pages[scope["path"]] = lambda: (JSON, to_json(describe(endpoint)))
        page = pages.get(scope["path"])
        if page is None:
            raise UnknownRoute("no such path; the documentation is at /")
        if scope["method"] not in ("GET", "HEAD"):
            raise MethodNotAllowed("only GET is allowed here", "GET, HEAD")
        media_type, body = self._kept(scope["path"], page)
        return media_type, b"" if scope["method"] == "HEAD" else body

    def _kept(self, path: str, page: Callable[[], tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
        """Return a page, made once for the models as they are now; the OpenAPI document takes 2 ms to make."""
        made_of = [(endpoint.manifest.digest, endpoint.provider) for endpoint in self.gateway.endpoints.values()]
        if made_of != self._made_of:
            self._made_of, self._pages = made_of, {}
        if path not in self._pages:
            self._pages[path] = page()
        return self._pages[path]
