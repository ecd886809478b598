"""A TCP line between clients and a server on loopback: it can be cut and mended, and refuse WebSockets as some proxies do."""

from __future__ import annotations

import contextlib
import socket
import threading

READ_BYTES = 65_536
REFUSAL = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
POLL_LINE = b" /v1/realtime/poll"


class Line:
    """Listens on a port of its own and passes everything to `port`. All methods may be called from any thread.

    `polls`: requests for a long-poll that went through.
    """

    def __init__(self, port: int, *, takes_sockets: bool = True) -> None:
        self.takes_sockets = takes_sockets
        self.polls = 0
        self._target = port
        self._is_cut = False
        self._lock = threading.Lock()
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._listen)]
        self._threads[0].start()

    def cut(self) -> None:
        """End every connection, without a goodbye, and take no new one."""
        with self._lock:
            self._is_cut = True
            for end in self._ends:
                _hang_up(end)

    def mend(self) -> None:
        """Take connections again."""
        self._is_cut = False

    def close(self) -> None:
        """Cut for good; returns when its threads have ended."""
        self.cut()
        _hang_up(self._listener)
        for thread in self._threads:
            thread.join()
        for end in (*self._ends, self._listener):
            end.close()

    def _listen(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._ends.append(near)
                if self._is_cut:
                    _hang_up(near)
                    continue
            self._begin(near)

    def _begin(self, near: socket.socket) -> None:
        thread = threading.Thread(target=self._serve, args=(near,))
        self._threads.append(thread)
        thread.start()

    def _serve(self, near: socket.socket) -> None:
        with contextlib.suppress(OSError):
            data = near.recv(READ_BYTES)
            if b"upgrade: websocket" in data.lower() and not self.takes_sockets:
                near.sendall(REFUSAL)
                _hang_up(near)
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            with self._lock:
                self._ends.append(far)
            back = threading.Thread(target=self._pass_back, args=(far, near))
            back.start()
            with contextlib.suppress(OSError):
                while data and not self._is_cut:
                    self.polls += POLL_LINE in data.split(b"\r\n", 1)[0]
                    far.sendall(data)
                    data = near.recv(READ_BYTES)
            _hang_up(far)
            back.join()
        _hang_up(near)

    def _pass_back(self, far: socket.socket, near: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(READ_BYTES):
                near.sendall(data)
        _hang_up(near)


def _hang_up(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
