"""Between a client and Redis: a proxy that delays and cuts, and a server that answers anything."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import sleep

import hiredis

Reply = bytes | None
"""What is sent for a command; None closes the connection instead."""

PONG, OK, NIL, NONE = b"+PONG\r\n", b"+OK\r\n", b"$-1\r\n", b":0\r\n"
NO_CLUSTER = b"-ERR This instance has cluster support disabled\r\n"


class Wire:
    """A port on which every connection is served by a thread of its own; it may be closed."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        self.connections = 0
        """How many there have been."""

    @contextmanager
    def in_use(self) -> Iterator["Wire"]:
        """Serve until the block ends."""
        thread = threading.Thread(target=self._accept)
        thread.start()
        try:
            yield self
        finally:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self.cut()
            thread.join()

    def cut(self) -> None:
        """End all connections that there are."""
        for each in self._open.copy():
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def serve(self, client: socket.socket) -> None:
        """Serve one connection; it is closed when this returns."""
        raise NotImplementedError

    def _accept(self) -> None:
        threads = []
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                self._open.append(client)
                threads.append(threading.Thread(target=self._serve, args=(client,)))
                threads[-1].start()
        self.cut()
        for thread in threads:
            thread.join()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            self.serve(client)
        with suppress(ValueError):
            self._open.remove(client)


class FakeRedis(Wire):
    """Speaks Redis' protocol; ``reply`` makes the answer to a command, which is no more asked."""

    def __init__(self, reply: Callable[[bytes], Reply]) -> None:
        super().__init__()
        self.reply = reply
        self.commands = 0
        """How many there have been, but for those of greetings."""

    def serve(self, client: socket.socket) -> None:
        """Answer commands in their order."""
        parser = hiredis.Reader()
        while data := client.recv(65_536):
            parser.feed(data)
            while (command := parser.gets()) is not False:
                answer = self._answer(command[0])
                if answer is None:
                    return
                client.sendall(answer)

    def _answer(self, name: bytes) -> Reply:
        if name == b"PING":
            return PONG
        if name == b"CLUSTER":
            return NO_CLUSTER
        self.commands += 1
        return self.reply(name)


def healthy(name: bytes) -> Reply:
    """How an empty Redis answers."""
    return NONE if name == b"SCARD" else NIL


class Proxy(Wire):
    """Passes bytes to the server at a Unix socket, and back."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self.delay = 0.0
        """Seconds that every piece of what the server sends is held back for."""
        self.holding = threading.Event()
        """Set when a piece is held back."""
        self.pieces: Callable[[], int | None] = lambda: None
        """After how many bytes of the server's a new connection is cut; None for never."""

    def serve(self, client: socket.socket) -> None:
        """Pass on what either sends until one has ended."""
        with socket.socket(socket.AF_UNIX) as server:
            server.connect(self._path)
            thread = threading.Thread(target=self._pass_commands, args=(client, server))
            thread.start()
            with suppress(OSError):
                self._pass_replies(server, client)
            for each in (client, server):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            thread.join()

    def _pass_commands(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65_536):
                server.sendall(data)
        with suppress(OSError):  # however the client has ended
            server.shutdown(socket.SHUT_RDWR)

    def _pass_replies(self, server: socket.socket, client: socket.socket) -> None:
        left = self.pieces()
        while data := server.recv(65_536):
            if self.delay:
                self.holding.set()
            sleep(self.delay)
            client.sendall(data[:left])
            if left is not None and (left := left - len(data)) <= 0:
                return
