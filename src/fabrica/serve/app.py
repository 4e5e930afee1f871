"""The HTTP API: `/v1/chat/completions`, `/v1/embeddings`, `/v1/models`, `/v1/search`, as OpenAI's clients speak it."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fabrica.errors import FabricaError, Refused, UsageError, need, unknown
from fabrica.serve import wire
from fabrica.types import ChatModel, Embedder, Item, Origin

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response

    from fabrica.serve.evidence import Evidence

TOO_LARGE = {"body_too_large", "too_many_images", "too_many_messages", "too_many_texts", "text_too_long",
             "too_many_pixels", "array_too_large"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Desk:
    """What is served: chat models and embedders by the name that clients ask for, and evidence to search.

    `token`: what clients must send as a bearer; "" = anyone who reaches the port. `at_once`: calls of models that run
    side by side; others wait.
    """

    chat: dict[str, ChatModel]
    embed: dict[str, Embedder]
    evidence: Evidence | None = None
    token: str = ""
    bounds: wire.Bounds = wire.BOUNDS
    at_once: int = 2


def create_app(desk: Desk) -> FastAPI:
    """The application; run it with uvicorn, or `fabrica serve`. Needs `fabrica[serve]`."""
    fastapi: Any = need("fastapi", "serve")
    app = fastapi.FastAPI(title="fabrica", docs_url=None, redoc_url=None, openapi_url=None)
    turn = asyncio.Semaphore(desk.at_once)

    async def run(work: Callable[..., Any], *given: Any) -> Any:
        async with turn:
            return await asyncio.get_running_loop().run_in_executor(None, work, *given)

    def route(path: str, answer: Callable[[dict[str, Any]], Any]) -> None:
        async def handle(request: Request) -> Response:
            try:
                _admit(request, desk.token)
                made: Response = await answer(await _body(request, desk.bounds.body))
                return made
            except FabricaError as error:
                return _failed(error)

        app.add_api_route(path, _typed(handle), methods=["POST"])

    async def chat(body: dict[str, Any]) -> Response:
        from fastapi.responses import JSONResponse, StreamingResponse

        name, model = _chosen(desk.chat, body.get("model"), "chat model")
        asked = wire.chat_request(body, desk.bounds)
        reply = await run(asked.ask, model)
        if not body.get("stream"):
            return JSONResponse(wire.completion(reply, name, asked.max_tokens))
        return StreamingResponse(_events(wire.chunks(reply, name)), media_type="text/event-stream")

    async def embeddings(body: dict[str, Any]) -> Response:
        from fastapi.responses import JSONResponse

        name, model = _chosen(desk.embed, body.get("model"), "embedder")
        origin = Origin("request", "input", "", "")
        items = [Item("text", text, origin) for text in wire.texts(body, desk.bounds)]
        return JSONResponse(wire.embeddings(await run(model, items), name, body.get("encoding_format") == "base64"))

    async def search(body: dict[str, Any]) -> Response:
        from fastapi.responses import JSONResponse

        if desk.evidence is None:
            raise UsageError("this service has no corpus; start it with: fabrica serve --data CORPUS")
        text, k, where = wire.query(body, desk.bounds)
        hits = await run(lambda: desk.evidence.search(text, k, where=where))  # type: ignore[union-attr]
        return JSONResponse({"object": "list", "query": text, "data": [asdict(hit) for hit in hits]})

    async def models(request: Request) -> Response:
        from fastapi.responses import JSONResponse

        try:
            _admit(request, desk.token)
        except FabricaError as error:
            return _failed(error)
        listed = [{"id": n, "object": "model", "created": 0, "owned_by": "fabrica"} for n in (*desk.chat, *desk.embed)]
        return JSONResponse({"object": "list", "data": listed})

    app.add_api_route("/v1/models", _typed(models), methods=["GET"])
    for path, answer in (("/v1/chat/completions", chat), ("/v1/embeddings", embeddings), ("/v1/search", search)):
        route(path, answer)
    made: FastAPI = app
    return made


def _typed(handle: Callable[..., Any]) -> Callable[..., Any]:
    """The handler with its request typed, as FastAPI reads it (annotations here are texts)."""
    from fastapi import Request
    from fastapi.responses import Response

    handle.__annotations__ = {"request": Request, "return": Response}
    return handle


async def _body(request: Request, most: int) -> dict[str, Any]:
    """The JSON object of a request, never more than `most` bytes of it held."""
    said = request.headers.get("content-length", "0")
    if said.isdigit() and int(said) > most:
        raise Refused("body_too_large", f"the request has {int(said):,} bytes; at most {most:,}")
    held = bytearray()
    async for part in request.stream():
        held += part
        if len(held) > most:
            raise Refused("body_too_large", f"the request has more than {most:,} bytes")
    try:
        body = json.loads(held)
    except (ValueError, RecursionError) as error:
        raise UsageError("the request's body is no JSON") from error
    if not isinstance(body, dict):
        raise UsageError(f"the request's body is a JSON {type(body).__name__}; wanted an object")
    return body


def _admit(request: Request, token: str) -> None:
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if token and not hmac.compare_digest(given.encode(), token.encode()):
        raise Refused("invalid_api_key", "this service wants its token as: Authorization: Bearer TOKEN")


def _chosen(models: dict[str, Any], name: Any, what: str) -> tuple[str, Any]:
    if not models:
        raise UsageError(f"this service has no {what}")
    if name not in models:
        raise unknown(what, str(name)[:80], models)
    return name, models[name]


def _failed(error: FabricaError) -> Response:
    """An error as clients expect it: 401, 413, 404 for unknown models, 400 for the rest that a user can mend."""
    from fastapi.responses import JSONResponse

    status, code = 400, error.code
    if code == "invalid_api_key":
        status = 401
    elif code in TOO_LARGE:
        status = 413
    elif isinstance(error, UsageError) and str(error).startswith(("no chat model", "no embedder")):
        status, code = 404, "model_not_found"
    return JSONResponse(wire.fault(error, code), status_code=status)


async def _events(objects: list[dict[str, Any]]) -> AsyncIterator[str]:
    for one in objects:
        yield f"data: {json.dumps(one, ensure_ascii=False)}\n\n"
    yield "data: [DONE]\n\n"
