"""A gRPC relay that stands between the nodes and the aggregator and keeps every byte that passes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

_STREAMING = {"Upload": (True, False), "DownloadUpdate": (False, True), "DownloadAggregate": (False, True)}


class RecordingRelay(grpc.GenericRpcHandler):
    """Passes each call on as it came; `requests` holds what nodes sent in each, in the clear of TLS."""

    def __init__(self, target_port: int, *, tls: Path, authority: Path) -> None:
        root = (authority / "ca.crt").read_bytes()
        key, certificate = (tls / "tls.key").read_bytes(), (tls / "tls.crt").read_bytes()
        self.requests: list[tuple[str, list[bytes]]] = []
        self._channel = grpc.secure_channel(
            f"localhost:{target_port}", grpc.ssl_channel_credentials(root, key, certificate)
        )
        self._server = grpc.server(ThreadPoolExecutor(max_workers=32))
        self._server.add_generic_rpc_handlers((self,))
        credentials = grpc.ssl_server_credentials([(key, certificate)], root, require_client_auth=True)
        self.port = self._server.add_secure_port("localhost:0", credentials)
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait()
        self._channel.close()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        method: str = handler_call_details.method
        match _STREAMING.get(method.rpartition("/")[2], (False, False)):
            case (True, False):
                return grpc.stream_unary_rpc_method_handler(
                    lambda stream, context: self._call(
                        self._channel.stream_unary(method), self._keep_all(method, stream), context
                    )
                )
            case (False, True):
                return grpc.unary_stream_rpc_method_handler(
                    lambda message, context: self._call_all(
                        self._channel.unary_stream(method), self._keep(method, message), context
                    )
                )
            case _:
                return grpc.unary_unary_rpc_method_handler(
                    lambda message, context: self._call(
                        self._channel.unary_unary(method), self._keep(method, message), context
                    )
                )

    @staticmethod
    def _call(call: object, request: object, context: grpc.ServicerContext) -> bytes:
        try:
            answer: bytes = call(request)  # type: ignore[operator]
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())  # type: ignore[attr-defined]
            raise
        return answer

    @staticmethod
    def _call_all(call: object, request: object, context: grpc.ServicerContext) -> Iterator[bytes]:
        try:
            yield from call(request)  # type: ignore[operator]
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())  # type: ignore[attr-defined]

    def _keep(self, method: str, message: bytes) -> bytes:
        self.requests.append((method.rpartition("/")[2], [message]))
        return message

    def _keep_all(self, method: str, stream: Iterator[bytes]) -> Iterator[bytes]:
        messages: list[bytes] = []
        self.requests.append((method.rpartition("/")[2], messages))
        for message in stream:
            messages.append(message)
            yield message
