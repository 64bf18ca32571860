"""Describe the service: list of models, one page per model, OpenAPI document."""

from typing import Any

import msgspec

from models.runtime.predictor import Predictor
from service.auth.access import OPEN_ROUTES, Access
from service.inference.endpoint import Endpoint
from service.inference.gateway import InferenceGateway
from service.jobs.representation import paths as job_paths

PROBLEM = {
    "type": "object",
    "required": ["status", "code", "error", "request_id", "retryable", "errors"],
    "properties": {
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "error": {"type": "string"},
        "request_id": {"type": "string"},
        "retryable": {"type": "boolean"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["loc", "reason"],
                "properties": {
                    "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
                    "reason": {"type": "string"},
                },
            },
        },
    },
}
ERRORS = {
    400: "The body is not what its content type says.",
    404: "No such model.",
    408: "The body did not arrive in time.",
    413: "The body is too long.",
    415: "The content type is not one the model reads, or the body is compressed.",
    422: "A value is not allowed: `error` says the first fault, `errors` all of them, where and why.",
    431: "The headers are too long.",
    500: "The service failed.",
    503: "The queue is full; try again after `Retry-After` seconds.",
    504: "The answer would have come too late.",
}
OUTLIER = {
    "type": "object",
    "description": "How unusual an instance is, against the model's training and validation data.",
    "required": ["score", "feature"],
    "properties": {
        "score": {
            "type": "number",
            "description": "Of ordinary instances, at most ten to the minus this have as much: 3 is one in a thousand.",
        },
        "feature": {"type": ["string", "null"], "description": "What is most unusual of it."},
    },
}
REFUSALS = {
    401: "No key was given, or none that is known.",
    403: "This key may not do this.",
    429: "This caller asks too often; try again after `Retry-After` seconds.",
}
KEYS = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
PROBLEM_CONTENT = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
ABOUT = "View counts, tags, images and graphs. The Open Inference Protocol, version 2, is spoken below `/v2`."
# BentoML's own index page loads a tag manager from another host; this one loads nothing from anywhere else.
DOCS_PAGE = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Lectern</title>
<link rel="stylesheet" href="./static_content/swagger-ui.css">
<link rel="icon" href="./static_content/favicon-light-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="./static_content/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({url: "./docs.json", dom_id: "#swagger-ui"});</script>
</body>
</html>
"""


def docs_page() -> bytes:
    """Return the OpenAPI document for people."""
    return DOCS_PAGE


def _array_schema(kind: type) -> dict[str, Any]:
    """Numpy arrays are nested lists of numbers on the wire."""
    return {"type": "array", "items": {"type": ["number", "array"]}}


def schemas(
    request: type, predictor: Predictor, template: str
) -> tuple[dict[str, Any], dict[str, Any], dict[str, dict[str, Any]]]:
    """Return a model's own request and prediction, and their parts by name, with its classes, sizes and fields.

    Args:
        request: The type of its bodies.
        predictor: The model's.
        template: How one part refers to another by ``{name}``.
    """
    card = predictor.card
    (asked, answered), parts = msgspec.json.schema_components(
        [request, card.prediction], schema_hook=_array_schema, ref_template=template
    )
    narrowing = card.narrow(predictor.assets)
    for kind, fields in ((card.instance, narrowing.instance), (card.prediction, narrowing.prediction)):
        if not fields:
            continue
        properties = parts[kind.__name__]["properties"]
        for name, keywords in fields.items():
            properties[name] = None if keywords is None else properties[name] | keywords
        parts[kind.__name__]["properties"] = {name: told for name, told in properties.items() if told is not None}
    return asked, answered, parts


def _alone(found: dict[str, Any], parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return a schema that holds its parts."""
    return found | {"$defs": parts}


def example_request(endpoint: Endpoint) -> dict[str, Any]:
    """Return a body that works, as plain JSON values."""
    instance = endpoint.predictor.card.example(endpoint.predictor.assets)
    return {"instances": [msgspec.to_builtins(instance)]}


def summary(endpoint: Endpoint) -> dict[str, Any]:
    """Return one line of the list of models."""
    manifest = endpoint.manifest
    score = manifest.certificate.score
    return {
        "name": manifest.model,
        "version": manifest.version,
        "family": manifest.family,
        "task": manifest.task,
        "summary": manifest.summary,
        "score": {
            "metric": score.metric,
            "unit": score.unit,
            "test": score.onnx,
            "instances": score.instances,
            "measured_on": score.measured_on or None,
        },
        "data": manifest.training.data["name"],
        "digest": manifest.digest,
        "provider": endpoint.provider,
    }


def index(gateway: InferenceGateway) -> dict[str, Any]:
    """``GET /v1/models``."""
    return {"models": [summary(endpoint) for endpoint in gateway.endpoints.values()]}


def card_page(endpoint: Endpoint) -> dict[str, Any]:
    """``GET /v1/models/{model}``: schema, example, score, certificate."""
    manifest = endpoint.manifest
    proof = manifest.certificate
    request, prediction, parts = schemas(endpoint.payloads.request, endpoint.predictor, "#/$defs/{name}")
    return summary(endpoint) | {
        "explains": endpoint.predictor.attends,
        "media_types": list(endpoint.payloads.media_types),
        "example": {"request": example_request(endpoint), "response": endpoint.example},
        "schema": {
            "request": _alone(request, parts),
            "prediction": _alone(prediction, parts),
        },
        "tensors": {
            "inputs": msgspec.to_builtins(manifest.inputs),
            "outputs": msgspec.to_builtins(manifest.outputs),
        },
        "certificate": {
            "model_sha256": manifest.model_sha256,
            "model_bytes": manifest.model_bytes,
            "parity": msgspec.to_builtins(proof.parity),
            "batch_norm": msgspec.to_builtins(proof.batch_norm),
            "batch_invariance": msgspec.to_builtins(proof.batch_invariance),
            "score": msgspec.to_builtins(proof.score),
            "other_scores": msgspec.to_builtins(proof.other_scores or []),
        },
        "profile": msgspec.to_builtins(manifest.profile),
        "licence": {key: manifest.training.data[key] for key in ("licence", "attribution")},
    }


def assets_page(endpoint: Endpoint) -> dict[str, Any]:
    """``GET /v1/models/{model}/assets``: the codec's constants; whoever has them can encode as the service does."""
    assets: dict[str, Any] = msgspec.to_builtins(endpoint.predictor.assets)
    return assets


def openapi(gateway: InferenceGateway, access: Access | None, *, has_jobs: bool = False) -> dict[str, Any]:
    """Return an OpenAPI 3.1 document with a schema and a working example per route."""
    paths, components = dict[str, Any](), dict[str, Any]()
    for endpoint in gateway.endpoints.values():
        template = f"#/components/schemas/{endpoint.name}.{{name}}"
        request, prediction, parts = schemas(endpoint.payloads.request, endpoint.predictor, template)
        components |= {f"{endpoint.name}.{name}": part for name, part in parts.items()}
        paths[f"/v1/models/{endpoint.name}/predict"] = {"post": _operation(endpoint, request, prediction)}
        paths[f"/v1/models/{endpoint.name}"] = {
            "get": _get("models", f"{endpoint.name}: schema, example, score and certificate")
        }
        paths[f"/v1/models/{endpoint.name}/assets"] = {
            "get": _get("models", f"{endpoint.name}: vocabulary, class names and other constants")
        }
    if has_jobs:
        job_routes, job_schemas = job_paths(PROBLEM_CONTENT)
        paths |= job_routes
        components |= job_schemas
    paths["/v1/models"] = {"get": _get("models", "The served models", index(gateway))}
    for path, text in (
        ("healthz", "Alive"),
        ("livez", "Alive"),
        ("readyz", "Ready for requests"),
        ("metrics", "Prometheus"),
    ):
        paths[f"/{path}"] = {"get": _get("service", text)}
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Lectern", "version": "1", "description": ABOUT},
        "paths": paths,
        "components": {"schemas": {**components, "Problem": PROBLEM}},
    }
    if access is not None:
        _secure(document, access)
    return document


def _secure(document: dict[str, Any], access: Access) -> None:
    """Say where a key is needed and how a caller is refused."""
    told = REFUSALS if access.has_keys else {429: REFUSALS[429]}
    if access.has_keys:
        document["components"]["securitySchemes"] = KEYS
        document["security"] = [{name: []} for name in KEYS]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if path not in OPEN_ROUTES:
                operation["responses"] |= _problems(told)
            elif access.has_keys:
                operation["security"] = []


def _problems(texts: dict[int, str]) -> dict[str, Any]:
    return {str(status): {"description": text, "content": PROBLEM_CONTENT} for status, text in texts.items()}


def _get(tag: str, text: str, example: dict[str, Any] | None = None) -> dict[str, Any]:
    media_type = "text/plain" if tag == "service" else "application/json"
    content = {media_type: {"example": example} if example else {}}
    return {"summary": text, "tags": [tag], "responses": {"200": {"description": text, "content": content}}}


def _operation(endpoint: Endpoint, request: dict[str, Any], prediction: dict[str, Any]) -> dict[str, Any]:
    answer = {
        "type": "object",
        "required": ["model", "predictions"],
        "properties": {
            "model": {"type": "string"},
            "predictions": {"type": "array", "items": prediction},
            "outliers": {"type": "array", "items": OUTLIER, "description": "Where `outlier` asked for them, in order."},
        },
    }
    content: dict[str, Any] = {"application/json": {"schema": request, "example": example_request(endpoint)}}
    for media_type in endpoint.predictor.card.from_media:
        content[media_type] = {"schema": {"type": "string", "format": "binary"}}
    return {
        "summary": endpoint.manifest.summary,
        "operationId": endpoint.name,
        "tags": [endpoint.manifest.family],
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": {
                "description": "One prediction per instance, in order.",
                "content": {"application/json": {"schema": answer, "example": endpoint.example}},
            },
            **_problems(ERRORS),
        },
    }
