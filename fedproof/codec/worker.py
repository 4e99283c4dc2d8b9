"""The process that does a daemon's work with SEAL: `python -m fedproof.codec.worker`.

A daemon starts one of these through `fedproof.codec.nursery`, and talks to it through `CodecWorkers`. It ends
when the daemon's end of its socket closes, which the kernel does however the daemon ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import os
import resource
import signal
import socket
import struct
import sys
import traceback
from typing import Final, NoReturn

import numpy as np

from fedproof.codec.cipher import SumDecryptor, UpdateEncryptor
from fedproof.codec.messages import (
    DECODE,
    ENCODE,
    ERRORS,
    REFUSALS,
    RUN,
    START,
    SUM,
    Kind,
    Part,
    receive_message,
    send_message,
)
from fedproof.codec.parameters import CodecParameters
from fedproof.codec.quantise import compute_residual, quantise
from fedproof.codec.scaling import expand_runs
from fedproof.codec.secret_key import SecretKey
from fedproof.codec.update import ChunkSum, Codec
from fedproof.errors import SumLost

# What a worker may allocate, and what beside for each sum that it holds: twice what 16 frames take. It needs
# a tenth, most of that for libraries; the limit is against what nobody has thought of.
MEMORY_BYTES: Final = 512 << 20
SUM_BYTES: Final = 2 << 20

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_PR_SET_DUMPABLE: Final = 4


_KINDS: Final = {error: kind for kind, error in ERRORS.items()}


class Worker:
    """Answers requests. Whatever it raises beside what a request may be refused with is a crash.

    Args:
        parameters: the federation's.
        secret_key: the epoch's; None where nothing is encoded or decoded.
    """

    def __init__(self, parameters: CodecParameters, secret_key: SecretKey | None) -> None:
        self._codec = Codec(parameters)
        self._encryptor: UpdateEncryptor | None = None
        self._decryptor: SumDecryptor | None = None
        if secret_key is not None:
            self._encryptor = self._codec.make_encryptor(secret_key)
            self._decryptor = self._codec.make_decryptor(secret_key)
        self._sums: dict[int, ChunkSum] = {}

    def answer(self, kind: Kind, body: memoryview) -> tuple[Part, ...]:
        """Return the parts of the reply's body."""
        match kind:
            case Kind.ENCODE:
                return self._encode(body)
            case Kind.DECODE:
                return (self._decode(body),)
            case Kind.ADD | Kind.SUBTRACT | Kind.RESUME | Kind.TAKE | Kind.DROP:
                return (self._sum(kind, body),)
            case _:
                raise ValueError(f"expected a request, got {kind!r}")

    def _encode(self, body: memoryview) -> tuple[Part, ...]:
        if self._encryptor is None:
            raise ValueError("expected a secret key before anything is encoded")
        weight, wants_residual, size, run_count, seed = ENCODE.unpack_from(body)
        delta_start = ENCODE.size + run_count * RUN.size
        runs = tuple(RUN.iter_unpack(body[ENCODE.size : delta_start]))
        delta = np.frombuffer(body, dtype=np.float32, count=size, offset=delta_start)
        limit, clips = self._codec.parameters.limit, expand_runs(runs)
        rng = np.random.Generator(np.random.SFC64(int.from_bytes(seed, "little")))
        values = quantise(delta, clips, limit=limit, weight=weight, rng=rng)
        chunk = self._codec.encrypt_chunk(values, self._encryptor)
        if not wants_residual:
            return (chunk,)
        return chunk, compute_residual(delta, values, clips, limit=limit, weight=weight).data

    def _decode(self, body: memoryview) -> Part:
        if self._decryptor is None:
            raise ValueError("expected a secret key before anything is decoded")
        contributors, index, length = DECODE.unpack_from(body)
        chunk = bytes(body[DECODE.size :])
        return self._codec.decrypt_chunk(
            chunk, self._decryptor, contributors=contributors, index=index, length=length
        ).data

    def _sum(self, kind: Kind, body: memoryview) -> Part:
        number, count, name_size = SUM.unpack_from(body)
        content = SUM.size + name_size
        where, chunk = str(body[SUM.size : content], "utf-8"), bytes(body[content:])
        if kind is Kind.DROP:
            self._sums.pop(number, None)
            return b""
        total = self._sums.get(number)
        if total is None:
            _limit_memory(len(self._sums) + 1)
            total = self._codec.start_sum()
        if kind is Kind.RESUME:
            total.resume(chunk, count)
        elif total.count != count:
            raise SumLost(f"{where}: expected a sum of {count}, found one of {total.count}")
        elif kind is Kind.ADD:
            total.add(chunk, where)
        elif kind is Kind.SUBTRACT:
            total.subtract(chunk, where)
        self._sums[number] = total
        if kind is Kind.TAKE:
            del self._sums[number]
            return total.result()
        return b""


def serve(connection: socket.socket) -> None:
    """Answer the requests that come on the socket, until its other end closes."""
    _limit_memory(0)
    with contextlib.suppress(EOFError, ConnectionError):
        _answer_all(connection)


def _answer_all(connection: socket.socket) -> NoReturn:
    worker: Worker | None = None
    while True:
        kind, body = receive_message(connection)
        reply: tuple[Part, ...] = ()
        try:
            if kind is Kind.START:
                worker = _start(body)
            elif worker is None:
                raise ValueError("expected a request to start first")
            else:
                reply = worker.answer(kind, body)
        except tuple(_KINDS) as error:
            if _KINDS[type(error)] not in REFUSALS[kind]:
                raise  # a crash: a full disk, say, is nothing that a peer's chunk could be refused for
            send_message(connection, _KINDS[type(error)], str(error).encode())
        else:
            send_message(connection, Kind.DONE, *reply)


def main() -> None:
    """Serve on the socket whose descriptor is the first argument.

    With the second argument "fork", workers come from here: for each byte and socket that arrive, one is
    forked, which finds everything imported, and its process's number is sent back; 0 if none could be forked.
    """
    _confine()
    connection = socket.socket(fileno=int(sys.argv[1]))
    if sys.argv[2] == "fork":
        with contextlib.suppress(ConnectionError):
            _fork_workers(connection)
    else:
        serve(connection)


def _fork_workers(channel: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that the kernel keeps no zombies
    gc.freeze()  # what is imported is shared with the workers, and not looked through again and again
    parent = os.getpid()
    while True:
        request, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
        if not request:
            return
        pid = 0
        # Without a process or a descriptor to spare, one request fails, and the workers that there are go on.
        with contextlib.suppress(OSError):
            if descriptors and (pid := os.fork()) == 0:
                channel.close()
                _serve_and_exit(descriptors[0], parent)
        for descriptor in descriptors:
            os.close(descriptor)
        channel.sendall(struct.pack("<I", pid))


def _serve_and_exit(descriptor: int, parent: int) -> NoReturn:
    status = 1
    try:
        _die_with_parent(parent)
        serve(socket.socket(fileno=descriptor))
        status = 0
    except BaseException:  # noqa: BLE001 - the process's outermost loop
        traceback.print_exc()
    finally:
        os._exit(status)


def _start(body: memoryview) -> Worker:
    bits, max_contributors, coeff_modulus, values_per_slot = START.unpack_from(body)
    key = bytes(body[START.size :])
    parameters = CodecParameters(
        bits=bits,
        max_contributors=max_contributors,
        coeff_modulus=coeff_modulus,
        values_per_slot=values_per_slot,
    )
    return Worker(parameters, SecretKey(key) if key else None)


def _confine() -> None:
    # The daemon decides what Ctrl-C and a stopping service mean; this process ends when the daemon has.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.stderr is not None:
        faulthandler.enable()
    # Keys and plaintexts do not end up in a core dump.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        # A core_pattern that is a pipe is given a dump whatever the limit. Forked workers inherit this.
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _limit_memory(sums: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = MEMORY_BYTES + sums * SUM_BYTES
    # Never lowered for fewer sums: SEAL keeps what it once had.
    if sums == 0 or wanted > soft:
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))


def _die_with_parent(parent: int) -> None:
    """Have Linux kill this process with its parent, even while C code holds Python's lock."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


if __name__ == "__main__":
    main()
