"""Where codec workers come from.

On Linux: from one process for the whole daemon, which has imported the codec and forks. `multiprocessing` has
such a server, but its children run the program's main module again, and inherit its environment with the
password of the node's keys. Elsewhere each worker is started anew.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from typing import Final

from fedproof.errors import WorkerDied

FORKS: Final = sys.platform == "linux"

# It takes a quarter of a second; one that is stopped or hangs is replaced.
_START_TIMEOUT_S: Final = 120.0

# A killed process ends at once, but for one that waits inside the kernel. That one is left behind.
_END_TIMEOUT_S: Final = 5.0

_KEPT_VARIABLES: Final = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR", "LANG", "PYTHONHOME")

_SETTINGS: Final = {
    # Processes are the parallelism, and a process with threads had better not fork.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # glibc keeps the memory of a chunk's arrays for the next one's: a tenth faster than new pages.
    "MALLOC_MMAP_THRESHOLD_": str(64 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}


@dataclass(frozen=True, slots=True)
class Child:
    """A worker's process.

    Attributes:
        connection: the only way to talk to it; it ends when this closes.
        pid: its number.
        started: what has to be waited for, where it is this process's own child.
        handle: a descriptor of the process, where it is not and the system has such: unlike its number,
            never another process's. It is closed with the connection.
    """

    connection: socket.socket
    pid: int
    started: subprocess.Popen[bytes] | None
    handle: int | None = None
    _ending: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def has_ended(self) -> bool:
        """Return whether the process has closed its end of the connection."""
        return _wait_for(self.connection, 0, timeout_s=0)

    def kill(self) -> None:
        """End the process, now. Whoever waits for a reply of its reads the end of the connection."""
        with self._ending:
            if self.connection.fileno() >= 0:
                self._kill()

    def close(self) -> None:
        """End the process, and give back what it takes here."""
        with self._ending:
            if self.connection.fileno() >= 0:
                self._kill()
                self.connection.close()
                if self.handle is not None:
                    os.close(self.handle)

    def _kill(self) -> None:
        with contextlib.suppress(OSError):  # it has ended
            if self.started is not None:
                _end(self.started)
            elif self.handle is not None:
                signal.pidfd_send_signal(self.handle, signal.SIGKILL)
                _wait_for(self.handle, select.POLLIN)
            elif not self.has_ended():
                # Its number may be another process's as soon as it has ended; but then its socket is closed.
                os.kill(self.pid, signal.SIGKILL)
                _wait_for(self.connection, 0)
        # Whoever waits for a reply is woken even where some other process has kept the socket open.
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


class _ForkServer:
    """The process that forks workers."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair()
        self._channel.settimeout(_START_TIMEOUT_S)
        with theirs:
            self._process = _launch(theirs, "fork")

    def fork(self, connection: socket.socket) -> int:
        """Return the number of a new process that serves on the connection.

        Raises:
            OSError: the server has ended.
            WorkerDied: it has not, but the system gives it no process.
        """
        socket.send_fds(self._channel, [b"\0"], [connection.fileno()])
        reply = self._channel.recv(4, socket.MSG_WAITALL)
        if len(reply) != 4:
            raise BrokenPipeError("the process that forks codec workers has ended")
        (pid,) = struct.unpack("<I", reply)
        if pid == 0:
            raise WorkerDied("codec worker: expected the system to fork one more process")
        return int(pid)

    def close(self) -> None:
        """End the process, and with it all workers that came from it."""
        _end(self._process)
        self._channel.close()


_lock = threading.Lock()
_server: _ForkServer | None = None


def prepare() -> None:
    """Start what workers come from, if it is not there; returns before it has imported the codec.

    Raises:
        WorkerDied: it did not start.
    """
    global _server  # noqa: PLW0603 - one for the whole process, like multiprocessing's
    with _lock:
        if FORKS and _server is None:
            try:
                _server = _ForkServer()
            except OSError as error:
                raise WorkerDied(f"codec worker: expected a process to start: {error}") from error


def start_worker() -> Child:
    """Return a new worker.

    Raises:
        WorkerDied: it did not start.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            if FORKS:
                pid = _fork(theirs)
                return Child(ours, pid, None, _open_handle(pid))
            process = _launch(theirs, "serve")
            return Child(ours, process.pid, process)
        except WorkerDied:
            ours.close()
            raise
        except OSError as error:
            ours.close()
            raise WorkerDied(f"codec worker: expected a process to start: {error}") from error


def _fork(connection: socket.socket) -> int:
    global _server  # noqa: PLW0603 - as above
    with _lock:
        if _server is not None:
            try:
                return _server.fork(connection)
            except OSError:
                _server.close()
        _server = _ForkServer()
        return _server.fork(connection)


def _open_handle(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # an old system, or one that forbids it; or the process has ended
        return None


def _wait_for(what: int | socket.socket, event: int, *, timeout_s: float | None = None) -> bool:
    """Wait some seconds for an event, or the end of a connection, and return whether it came."""
    waiting = select.poll()
    waiting.register(what, event)
    return bool(waiting.poll(1000 * (_END_TIMEOUT_S if timeout_s is None else timeout_s)))


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_END_TIMEOUT_S)


@atexit.register
def _close_server() -> None:
    with _lock:
        if _server is not None:
            _server.close()


def _launch(connection: socket.socket, role: str) -> subprocess.Popen[bytes]:
    inherited = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-P", "-m", "fedproof.codec.worker", str(connection.fileno()), role],
        stdin=subprocess.DEVNULL,
        pass_fds=[connection.fileno()],
        env={**inherited, **_SETTINGS, "PYTHONPATH": path},
        process_group=0,  # a terminal's Ctrl-C does not reach it
    )
