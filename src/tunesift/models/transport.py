"""How is one request sent and its answer read, within a deadline that holds and a size that is bounded?

httpx2 reads with a timeout per read, which a server that drips never reaches, and unpacks without a limit. So we stand
one layer below it, on httpcore2: the same connections, and a network layer of ours that knows when the attempt ends.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpcore2
import httpx2

from tunesift.errors import RecipeError

MOST_BODY = 32 * 2**20
"""Bytes of one answer, unpacked."""
MOST_FILE = 2**30
"""Bytes of one file that is fetched."""
CONNECT_S = 10.0
_TOGETHER = 2**16
"""Bytes of a request that are held back until its answer is waited for."""
IDLE_S = 4.0
"""Seconds after which an idle connection is closed; servers commonly close theirs after five."""

Broken = Literal[
    "refused", "unresolved", "certificate", "files", "public", "closed", "stale", "deadline", "cut", "slow", "large",
    "garbled",
]  # fmt: skip
"""refused: no connection; files: too many are open here; public: no encryption on a public network; closed: ended
without a byte; stale: an idle connection that the server had closed; deadline: no header in time; cut and slow: the
body ended early, or not in time; large: header or body; garbled: no HTTP, or a packing that was not asked for."""


class TransportFault(Exception):
    """A request that came to no whole answer."""

    def __init__(self, what: Broken, message: str) -> None:
        super().__init__(message)
        self.what, self.message = what, message


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, unpacked."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


@dataclass(frozen=True, slots=True)
class Way:
    """How to reach an endpoint."""

    url: str
    timeout_s: float
    insecure: bool
    trust_env: bool


class Wire:
    """Connections to one endpoint, each used by one thread at a time; the one used last is used next."""

    def __init__(self, way: Way) -> None:
        parts = urlsplit(way.url)
        self._way = way
        self._host, self._path = parts.hostname or "", parts.path.rstrip("/")
        self._origin = httpcore2.URL(way.url).origin
        self._secure = parts.scheme == "https"
        self._context = httpx2.create_ssl_context(trust_env=way.trust_env) if self._secure else None
        self._proxy = _proxy(parts.scheme, self._host) if way.trust_env else None
        if self._proxy and not self._secure and not way.insecure:
            raise RecipeError(
                "url: an http:// address through a proxy is read by the proxy; write https, or insecure: true."
            )
        self._idle: list[_Line] = []
        self._posted: dict[str, httpcore2.URL] = {}
        """The few addresses that are posted to; taking one apart costs as much as reading a small answer."""

    def send(self, path: str, headers: list[tuple[bytes, bytes]], body: bytes | None) -> Answer:
        """Post a body, or get what is there where there is none, and read the whole answer; raises `TransportFault`."""
        try:
            line = self._idle.pop()
        except IndexError:
            line = _Line(self._connection, checked=self._secure or self._way.insecure)
        if body is None:
            request, most = httpcore2.Request("GET", self._address(path), headers=headers), MOST_FILE
        else:
            url = self._posted.get(path)
            if url is None:
                url = self._posted[path] = self._address(path)
            headers = [*headers, (b"Content-Length", str(len(body)).encode())]
            request, most = httpcore2.Request("POST", url, headers=headers, content=body), MOST_BODY
        try:
            return line.send(request, self._way.timeout_s, most)
        finally:
            self._idle.append(line)

    def _address(self, path: str) -> httpcore2.URL:
        return httpcore2.URL(self._way.url.rstrip("/") + path)

    def _connection(self, network: httpcore2.NetworkBackend) -> httpcore2.HTTPConnection | httpcore2.HTTPProxy:
        """A connection that nothing has been sent over; through a proxy it is a pool of one."""
        options: dict[str, Any] = {"keepalive_expiry": IDLE_S, "ssl_context": self._context}
        if self._proxy is None:
            return httpcore2.HTTPConnection(self._origin, network_backend=network, **options)
        parts = urlsplit(self._proxy)
        auth = (parts.username or "", parts.password or "") if parts.username else None
        address = f"{parts.scheme}://{parts.hostname}:{parts.port or 80}"
        return httpcore2.HTTPProxy(address, proxy_auth=auth, network_backend=network, max_connections=1, **options)


class _Line:
    """One connection, and when what is sent over it must be over."""

    def __init__(
        self,
        connect: Callable[[httpcore2.NetworkBackend], httpcore2.HTTPConnection | httpcore2.HTTPProxy],
        *,
        checked: bool,
    ) -> None:
        self.ends = 0.0
        self.fresh = False
        self.heard = False
        self._connect = connect
        self._network = _Network(self, checked)
        self._open = connect(self._network)

    def left(self) -> float:
        """Seconds until the attempt must be over."""
        left = self.ends - time.monotonic()
        if left <= 0:
            raise httpcore2.ReadTimeout("deadline")
        return left

    def send(self, request: httpcore2.Request, timeout_s: float, most: int) -> Answer:
        self.ends, self.fresh, self.heard = time.monotonic() + timeout_s, False, False
        self._renew()
        try:
            response = self._open.handle_request(request)
        except httpcore2.TimeoutException:
            raise TransportFault("deadline", f"no answer within {timeout_s:g} s") from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.ProxyError) as error:
            raise self._before_header(error) from None
        try:
            headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in response.headers}
            chunks = cast(Iterable[bytes], response.stream)
            return Answer(response.status, headers, unpacked(chunks, headers.get("content-encoding", ""), most))
        except httpcore2.TimeoutException:
            raise TransportFault("slow", f"the answer was not complete within {timeout_s:g} s") from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError):
            raise TransportFault("cut", "the connection ended in the middle of the answer") from None
        finally:
            response.close()

    def _renew(self) -> None:
        """Leave a connection that was closed, or that the server commonly closes about now; pools do so themselves."""
        if isinstance(self._open, httpcore2.HTTPConnection) and (self._open.is_closed() or self._open.has_expired()):
            self._open.close()
            self._open = self._connect(self._network)

    def _before_header(self, error: Exception) -> TransportFault:
        said = str(error)
        if isinstance(error, httpcore2.ConnectError | httpcore2.ProxyError):
            return TransportFault("refused", f"no connection ({said[:120]})")
        if self.heard:
            large = "too much data" in said or "too long" in said
            return TransportFault("large" if large else "garbled", f"the answer is no HTTP ({said[:120]})")
        if not self.fresh:
            return TransportFault("stale", "the server had closed an idle connection")
        return TransportFault("closed", "the connection was closed without an answer")


class _Network(httpcore2.NetworkBackend):
    """Opens connections within the time that is left, to where they may go."""

    def __init__(self, line: _Line, checked: bool) -> None:
        self._line, self._checked = line, checked
        self._plain = httpcore2.SyncBackend()

    def connect_tcp(self, host: str, port: int, *rest: Any, **options: Any) -> httpcore2.NetworkStream:  # Any: as given
        self._line.fresh = True
        limit = min(CONNECT_S, self._line.left())
        try:
            stream = self._connected(_addresses(host, port, limit), port)
        except httpcore2.ConnectTimeout:
            raise TransportFault("refused", f"no connection to {host}:{port} within {limit:.0f} s") from None
        except httpcore2.ConnectError as error:
            raise _unconnected(error.args[0] if error.args else error, host, port) from None
        if (
            not self._checked
            and ipaddress.ip_address(stream.get_extra_info("server_addr")[0].partition("%")[0]).is_global
        ):
            stream.close()
            raise TransportFault("public", f"{host} has a public address")
        return _Stream(stream, self._line)

    def _connected(self, addresses: Sequence[str], port: int) -> httpcore2.NetworkStream:
        """A connection to the first of a name's addresses that takes one."""
        for address in addresses[:-1]:
            with suppress(httpcore2.ConnectError, httpcore2.ConnectTimeout):
                return self._open(address, port)
        return self._open(addresses[-1], port)

    def _open(self, address: str, port: int) -> httpcore2.NetworkStream:
        limit = min(CONNECT_S, self._line.left())
        return self._plain.connect_tcp(
            address, port, limit, socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
        )


class _Stream(httpcore2.NetworkStream):
    """A connection whose reads and writes end with the attempt, however little comes at a time."""

    def __init__(self, plain: httpcore2.NetworkStream, line: _Line) -> None:
        self._plain, self._line = plain, line
        self._held = bytearray()

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with suppress(httpcore2.WriteError):  # a server may answer, and close, before it has read everything
            self._flush()
        data = self._plain.read(max_bytes, self._line.left())
        self._line.heard = self._line.heard or bool(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._held += buffer
        if len(self._held) > _TOGETHER:
            self._flush()

    def _flush(self) -> None:
        """Send header and body at once, where they are small: half the packets, and half the system calls."""
        held, self._held = bytes(self._held), bytearray()
        if held:
            self._plain.write(held, self._line.left())

    def close(self) -> None:
        self._plain.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        try:
            return _Stream(self._plain.start_tls(ssl_context, server_hostname, self._line.left()), self._line)
        except httpcore2.ConnectError as error:
            cause = error.args[0] if error.args else error
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise TransportFault("certificate", cause.verify_message) from None
            if isinstance(cause, ssl.SSLError):
                raise TransportFault("certificate", str(cause.reason)) from None
            raise

    def get_extra_info(self, info: str) -> Any:  # Any: as httpcore2 has it
        return self._plain.get_extra_info(info)


def _addresses(host: str, port: int, limit: float) -> list[str]:
    """The addresses of a name. Asking for them knows no deadline, so who takes longer is left behind."""
    with suppress(ValueError):
        return [str(ipaddress.ip_address(host))]
    found: list[list[str] | OSError] = []

    def look() -> None:
        try:
            found.append([str(a[4][0]) for a in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)])
        except OSError as error:
            found.append(error)

    asking = threading.Thread(target=look, name="lookup", daemon=True)
    asking.start()
    asking.join(limit)
    if not found:
        raise TransportFault("refused", f"no address of {host} within {limit:.0f} s")
    if isinstance(found[0], OSError):
        raise _unconnected(found[0], host, port)
    return found[0]


def _unconnected(cause: object, host: str, port: int) -> TransportFault:
    if isinstance(cause, socket.gaierror):
        return TransportFault("unresolved", f"the name {host} is not known ({cause.strerror})")
    if isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE):
        return TransportFault("files", "this process has too many files open")
    said = cause.strerror if isinstance(cause, OSError) else str(cause)
    return TransportFault("refused", f"no connection to {host}:{port} ({said})")


def unpacked(chunks: Iterable[bytes], encoding: str, most: int = MOST_BODY) -> bytes:
    """A body as it was before it was packed, never more of it than allowed; raises `TransportFault`."""
    if encoding not in ("identity", "gzip", "x-gzip", ""):
        raise TransportFault("garbled", "the answer is packed in a way that was not asked for")
    unpacker = zlib.decompressobj(31) if "gzip" in encoding else None
    whole = bytearray()
    try:
        for chunk in chunks:
            room = most + 1 - len(whole)
            whole += unpacker.decompress(chunk, room) if unpacker else chunk
            if len(whole) > most:
                raise TransportFault("large", f"the answer has more than {most // 2**20} MB")
    except zlib.error:
        raise TransportFault("garbled", "the answer says it is gzip and is not") from None
    if unpacker and not unpacker.eof and whole:
        raise TransportFault("cut", "the packed answer ends too early")
    return bytes(whole)


def _proxy(scheme: str, host: str) -> str | None:
    """The proxy that the environment names for an address."""
    found = getproxies().get(scheme) or getproxies().get("all")
    if not found or proxy_bypass(host):
        return None
    if urlsplit(found).scheme != "http":
        raise RecipeError(
            f"url: the environment names a {urlsplit(found).scheme} proxy; only http:// proxies are spoken to."
        )
    return found
