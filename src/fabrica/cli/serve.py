"""`fabrica serve`: chat, embeddings and search with evidence over HTTP, as OpenAI's clients speak it."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fabrica.cli._show import Json, emit
from fabrica.errors import UsageError

if TYPE_CHECKING:
    from fabrica.serve.app import Desk

LOCAL = "127.0.0.1"


def serve(
    data: Annotated[Path | None, typer.Option("--data", help="A corpus to search.")] = None,
    chat: Annotated[list[str] | None, typer.Option("--chat", help="grammar, a catalogue name, a model folder.")] = None,
    embed: Annotated[list[str] | None, typer.Option("--embed", help="hashed, a catalogue name, a folder.")] = None,
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = LOCAL,
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 8000,
    token_file: Annotated[Path | None, typer.Option("--token-file", help="A file with what clients must send.")] = None,
    json: Json = False,
) -> None:
    """Serve /v1/chat/completions, /v1/embeddings, /v1/search and /v1/models.

    Listens on this machine alone unless --host says otherwise, which then wants --token-file.

    Example: fabrica serve --data corpus --chat smollm2-135m --embed minilm
    """
    from fabrica.errors import need
    from fabrica.serve.app import create_app

    uvicorn = need("uvicorn", "serve")
    token = _token(host, token_file)
    table = desk(data, chat or ["grammar"], embed or ["hashed"], token)
    app = create_app(table)
    url = f"http://{host}:{port}/v1"
    texts = 0 if table.evidence is None else len(table.evidence.texts)
    served = {"url": url, "chat": list(table.chat), "embed": list(table.embed), "texts": texts}
    emit(served, as_json=json, text=f"{url}: {', '.join((*table.chat, *table.embed))}; {texts} texts to search")
    uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False, server_header=False)


def desk(data: Path | None, chat: list[str], embed: list[str], token: str = "") -> Desk:
    """What the options name, opened."""
    from fabrica.chat import LocalChat, TemplateGrammar
    from fabrica.corpus import Corpus
    from fabrica.encode.hashed import HashedText
    from fabrica.models.embed import TowerEmbedder
    from fabrica.serve.app import Desk
    from fabrica.serve.evidence import Evidence
    from fabrica.types import ChatModel, Embedder

    talkers: dict[str, ChatModel] = {
        Path(name).name: TemplateGrammar() if name == "grammar" else LocalChat(name) for name in chat
    }
    embedders: dict[str, Embedder] = {
        Path(name).name: HashedText() if name == "hashed" else TowerEmbedder(name) for name in embed
    }
    dense = next((e for n, e in embedders.items() if n != "hashed"), None)
    evidence = None if data is None else Evidence(Corpus.open(data), dense)
    return Desk(talkers, embedders, evidence, token)


def _token(host: str, file: Path | None) -> str:
    try:
        outside = not ipaddress.ip_address(host).is_loopback
    except ValueError:
        outside = host != "localhost"
    if file is None:
        if outside:
            raise UsageError(f"--host {host} can be reached from elsewhere; give --token-file FILE with a secret in it")
        return ""
    token = file.read_text("utf-8").strip()
    if len(token) < 16:
        raise UsageError(f"the token in {file} has {len(token)} characters; give at least 16")
    return token
