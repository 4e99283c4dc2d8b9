"""JSON-RPC 2.0 (jsonrpc.org/specification): bytes in, bytes out, single or in batches."""

from __future__ import annotations

import json
import threading
from typing import Any

import structlog
from pydantic_core import from_json

from fedproof.devchain.methods import Methods
from fedproof.devchain.refusal import InvalidParameters, InvalidRequest, Refusal

PARSE_ERROR = -32700
INTERNAL_ERROR = -32603
MAX_BATCH = 1000

Response = dict[str, Any]


class Rpc:
    """Answers requests from any thread, one at a time.

    Attributes:
        lock: guards the chain; whoever touches the chain otherwise takes it too.
    """

    def __init__(self, methods: Methods) -> None:
        """Serve these methods."""
        self.lock = threading.Lock()
        self._methods = methods
        self._log = structlog.get_logger()

    def answer(self, body: bytes) -> bytes:
        """Return the response to a request or a batch; nothing, when only notifications came."""
        try:
            # py-evm lifts Python's recursion limit, so the standard parser would follow nested lists until
            # the stack overflows. This one has a limit of its own.
            document: object = from_json(body)
        except ValueError as error:
            return _encode(
                _fail(None, PARSE_ERROR, f"parse error: expected JSON, got {len(body)} bytes: {error}")
            )
        if not isinstance(document, list):
            response = self._answer_one(document)
            return b"" if response is None else _encode(response)
        if not 1 <= len(document) <= MAX_BATCH:
            reason = f"invalid batch: expected 1 to {MAX_BATCH} requests, got {len(document)}"
            return _encode(_fail(None, InvalidRequest.code, reason))
        responses = [response for response in map(self._answer_one, document) if response is not None]
        return _encode(responses) if responses else b""

    def _answer_one(self, request: object) -> Response | None:
        request_id = request.get("id") if isinstance(request, dict) else None
        if not isinstance(request_id, str | int | float | None) or isinstance(request_id, bool):
            request_id = None
        try:
            response: Response = {"jsonrpc": "2.0", "id": request_id, "result": self._call(request)}
        except Refusal as refusal:
            response = _fail(request_id, refusal.code, str(refusal))
            if refusal.data is not None:
                response["error"]["data"] = refusal.data
        except Exception as error:  # noqa: BLE001 - the request's outermost frame: the chain goes on for the others
            self._log.exception("internal_error", request=repr(request)[:200])
            response = _fail(request_id, INTERNAL_ERROR, f"internal error: {type(error).__name__}: {error}")
        is_notification = isinstance(request, dict) and "method" in request and "id" not in request
        return None if is_notification else response

    def _call(self, request: object) -> object:
        match request:
            case {"jsonrpc": "2.0", "method": str() as name, "params": parameters}:
                pass
            case {"jsonrpc": "2.0", "method": str() as name}:
                parameters = []
            case _:
                raise InvalidRequest("invalid request: expected an object with jsonrpc 2.0 and a method")
        if not isinstance(parameters, list):
            raise InvalidParameters(f"{name}: expected a list of parameters, got {type(parameters).__name__}")
        with self.lock:
            return self._methods.call(name, parameters)


def _fail(request_id: object, code: int, message: str) -> Response:
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}}


def _encode(response: Response | list[Response]) -> bytes:
    return json.dumps(response, separators=(",", ":")).encode()
