"""Who may call a served process, over what, and that it calls nobody itself."""

import asyncio
import base64
import inspect
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPResponse
from pathlib import Path
from statistics import quantiles
from typing import Any

import bentoml
import httpx
import orjson
import pytest
import trustme

from chaos.service.faults import NAMES
from chaos.service.harness import PLANTED
from models.paths import REPOSITORY
from service.auth.api_keys import line_of, new_key

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning"),
]

LIMIT_SECONDS = 0.5
HOSTILE, MOST_MEGABYTES = 200, 32.0
# What ``LECTERN_MAX_ARRIVING_BYTES`` gives to bodies that are arriving, and these never end.
ROOM_MEGABYTES = {"bodies": 32.0}
# How much one hostile connection sends, if it is let.
MOST_SENT = 2**20
IMPATIENT = {"LECTERN_MODELS": "viewcount", "LECTERN_BODY_TIMEOUT_SECONDS": "1", "LECTERN_KEEP_ALIVE_SECONDS": "1"}
RELOAD_SECONDS = 3.0


def send(server: Any, path: str, *keys: str, method: str = "GET", **more: Any) -> httpx.Response:
    """Return the answer on a connection of its own, so that every worker is asked in its turn."""
    headers = {"authorization": f"Bearer {keys[0]}"} if keys else {}
    verify = True if server.trust is None else server.trust
    return httpx.request(method, server.url + path, headers=headers | more.pop("headers", {}), verify=verify, **more)


def example(server: Any, *keys: str, model: str = "viewcount") -> Any:
    """Return the documented request and answer."""
    return send(server, f"/v1/models/{model}", *keys).json()["example"]


# Keys


@pytest.fixture(scope="module")
def guarded(launch: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, dict[str, str]]:
    """Two workers, a file of keys, and the keys by role."""
    file, keys = tmp_path_factory.mktemp("keys") / "keys", {role: new_key() for role in ("predict", "admin", "metrics")}
    file.write_text("".join(line_of(key, f"of-{role}", [role]) + "\n" for role, key in keys.items()))
    return launch(LECTERN_KEYS_FILE=str(file), LECTERN_MODELS="viewcount", LECTERN_WORKERS="2"), file, keys


def test_keys(guarded: tuple[Any, Path, dict[str, str]]) -> None:
    """Health is everybody's; metrics, pages and predictions are for whoever has a key for them."""
    server, _, keys = guarded
    expected = {"/healthz": "", "/livez": "", "/readyz": "", "/metrics": "metrics", "/schema.json": "predict"}
    expected |= dict.fromkeys(("/", "/docs.json", "/v1/models", "/static_content/swagger-ui.css"), "predict")
    for path, role in expected.items():
        assert send(server, path).status_code == (401 if role else 200), path
        for held, key in keys.items():
            is_let_in = not role or held == role or (role == "predict" and held == "admin")
            assert send(server, path, key).status_code == (200 if is_let_in else 403), (path, held)
    page = example(server, keys["predict"])
    answer = send(server, "/v1/models/viewcount/predict", keys["predict"], method="POST", json=page["request"])
    assert answer.json() == page["response"]
    for key in (keys["admin"], keys["metrics"]):
        assert send(server, "/v1/models/viewcount/predict", key, method="POST", json={}).status_code == 403


def test_counted(guarded: tuple[Any, Path, dict[str, str]]) -> None:
    """The metrics count who was refused, and every outcome is there from the start."""
    server, _, keys = guarded
    send(server, "/v1/models/viewcount/predict", method="POST", json={})
    text = send(server, "/metrics", keys["metrics"]).text
    refused = [line for line in text.splitlines() if 'outcome="unauthenticated"' in line]
    assert len(refused) == 1
    assert float(refused[0].split()[-1]) >= 1
    for outcome in ("forbidden", "rate_limited"):
        assert f'lectern_requests_total{{model="viewcount",outcome="{outcome}",version=' in text


def test_bentoml_client(guarded: tuple[Any, Path, dict[str, str]]) -> None:
    """BentoML's own client sends its ``token`` as a key."""
    server, _, keys = guarded
    page = example(server, keys["predict"])
    with bentoml.SyncHTTPClient(server.url, token=keys["predict"]) as client:
        assert client.predict_viewcount(**page["request"]) == page["response"]


def test_reloaded_by_every_worker(guarded: tuple[Any, Path, dict[str, str]]) -> None:
    """A new file holds in all workers within seconds; a broken one leaves the keys as they were, and is in the log."""
    server, file, keys = guarded
    lines, other = file.read_text(), new_key()

    def replace(text: str) -> None:
        new = file.with_suffix(".new")
        new.write_text(text)
        new.replace(file)

    def statuses(key: str) -> set[int]:
        return {send(server, "/v1/models", key).status_code for _ in range(20)}

    assert statuses(other) == {401}
    replace(lines + line_of(other, "other", ["predict"]))
    time.sleep(RELOAD_SECONDS)
    assert (statuses(other), statuses(keys["predict"])) == ({200}, {200})
    replace("nonsense")
    time.sleep(RELOAD_SECONDS)
    assert statuses(other) == {200}
    replace(lines)
    time.sleep(RELOAD_SECONDS)
    assert (statuses(other), statuses(keys["predict"])) == ({401}, {200})
    log = server.log.read_text()
    assert log.count("line 1: it has fewer than three words") == 2  # once in each worker
    assert log.count("the keys read before stay") == 2
    assert not [key for key in (*keys.values(), other) if key in log]


def test_broken_keys_are_one_line(run: Any, new_home: Any, tmp_path: Path) -> None:
    """A service that cannot know its callers does not start, and says why without quoting what it read."""
    home = new_home()
    for settings in (
        {"LECTERN_KEYS": "ci SECRET predict"},
        {"LECTERN_KEYS_FILE": str(tmp_path / "none")},
        {"LECTERN_TLS_CERTIFICATE": str(tmp_path / "none"), "LECTERN_TLS_KEY": str(tmp_path / "none")},
        {"LECTERN_TLS_KEY": str(tmp_path / "none")},
    ):
        done = run("-m", "service", home=home, timeout=20, LECTERN_DEVICE="cpu", **settings)
        assert done.returncode > 0
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert json.loads(done.stderr)["message"].startswith("lectern: LECTERN_")
        assert "SECRET" not in done.stderr


# Rates


def test_an_address_cannot_be_claimed(launch: Any) -> None:
    """Without keys an address has its limit whatever it says of where it comes from."""
    server = launch(LECTERN_REQUESTS_PER_SECOND="0.001", LECTERN_MODELS="viewcount")
    statuses = [
        send(server, "/v1/models", headers={"x-forwarded-for": f"10.0.0.{number}"}).status_code for number in range(4)
    ]
    assert statuses == [200, 429, 429, 429]
    assert send(server, "/readyz").status_code == 200


def ask_in_turn(port: int, keys: list[str], body: bytes, rate: float, seconds: float) -> tuple[list[int], list[float]]:
    """Statuses and seconds of predictions asked at this rate, with each key in turn on a connection of its own."""
    head = "POST /v1/models/viewcount/predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    lines = [f"{head}x-api-key: {key}\r\ncontent-length: {len(body)}\r\n\r\n" for key in keys]
    connections = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in keys]
    statuses, taken, started = [], [], time.perf_counter()
    for number in range(int(rate * seconds)):
        time.sleep(max(0, started + number / rate - time.perf_counter()))
        connection, line = connections[number % len(keys)], lines[number % len(keys)]
        sent = time.perf_counter()
        connection.sendall(line.encode() + body)
        answer = HTTPResponse(connection)
        answer.begin()
        answer.read()
        statuses.append(answer.status)
        taken.append(time.perf_counter() - sent)
    for connection in connections:
        connection.close()
    return statuses, taken


# The same in a process of its own, which says when it begins and how it went.
FLOOD = f"""
import socket, sys, time
from http.client import HTTPResponse
{inspect.getsource(ask_in_turn)}
port, key, body, rate, seconds = sys.argv[1:]
print("begun", flush=True)
statuses, _ = ask_in_turn(int(port), [key], body.encode(), float(rate), float(seconds))
print(statuses.count(200), statuses.count(429))
"""


def test_one_greedy_caller(launch: Any) -> None:
    """Nine callers within their limits get every answer, beside one that asks twenty times what it may.

    Prints their 99th percentiles without and with it: ``python -m pytest -m e2e -s -k one_greedy_caller``.
    """
    keys, rate, seconds = [new_key() for _ in range(10)], 30.0, 2.0
    lines = ";".join(line_of(key, f"k{number}", ["predict"], rate=rate) for number, key in enumerate(keys))
    server = launch(LECTERN_KEYS=lines, LECTERN_MODELS="viewcount")
    body = orjson.dumps(example(server, keys[1])["request"])
    percentiles: dict[bool, list[float]] = {False: [], True: []}
    for is_flooded in [False, True] * 3:
        greedy = None
        if is_flooded:
            arguments = [str(server.port), keys[0], body, str(20 * rate), str(seconds + 1)]
            greedy = subprocess.Popen([sys.executable, "-c", FLOOD, *arguments], stdout=subprocess.PIPE, text=True)
            assert greedy.stdout is not None
            assert greedy.stdout.readline() == "begun\n"
            time.sleep(0.5)
        statuses, taken = ask_in_turn(server.port, keys[1:], body, 9 * rate * 0.9, seconds)
        if greedy is not None:
            good, bad = map(int, greedy.communicate(timeout=60)[0].split())
            assert good <= rate * (seconds + 5)
            assert bad > 10 * good
        assert set(statuses) == {200}
        percentiles[is_flooded].append(1000 * quantiles(taken, n=100)[98])
    told = {is_flooded: [round(one, 2) for one in found] for is_flooded, found in percentiles.items()}
    sys.stdout.write(f"p99 of the others, ms, without: {told[False]}, with: {told[True]}\n")


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module", params=["true", "false"], ids=["wire", "front"])
def encrypted(request: Any, launch: Any, authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server that speaks TLS, with the short way and without."""
    folder, trust = tmp_path_factory.mktemp("tls"), ssl.create_default_context()
    issued = authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.RSA)
    issued.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    authority.configure_trust(trust)
    return launch(
        trust=trust,
        LECTERN_TLS_CERTIFICATE=str(folder / "certificate.pem"),
        LECTERN_TLS_KEY=str(folder / "key.pem"),
        LECTERN_WIRE=request.param,
        LECTERN_MODELS="viewcount,image",
        LECTERN_BODY_TIMEOUT_SECONDS=str(LIMIT_SECONDS),
    )


def connect(server: Any, trust: ssl.SSLContext | None = None) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", server.port))
    plain.settimeout(10)
    return (trust or server.trust).wrap_socket(plain, server_hostname="127.0.0.1")


def client_context(authority: trustme.CA, **versions: Any) -> ssl.SSLContext:
    """Return a client that would speak anything, within these versions."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = versions.pop("minimum", ssl.TLSVersion.TLSv1)
    context.maximum_version = versions.pop("maximum", ssl.TLSVersion.MAXIMUM_SUPPORTED)
    return context


def can_shake_hands(client: ssl.SSLContext, authority: trustme.CA) -> bool:
    """Whether such a client comes to terms with a server that takes anything (and so is not refused by itself)."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.set_ciphers("ALL:@SECLEVEL=0")
    server.minimum_version = ssl.TLSVersion.TLSv1
    authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.RSA).configure_cert(server)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(back, there, server_hostname="127.0.0.1"), server.wrap_bio(there, back, server_side=True)]
    for _ in range(5):
        for end in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return ends[0].version() is not None


def test_encrypted(encrypted: Any) -> None:
    """Health, pages, predictions and long bodies, in chunks too, are what they are without TLS."""
    assert encrypted.url.startswith("https://")
    assert encrypted.get("/readyz").status_code == 200
    for model in ("viewcount", "image"):
        page = encrypted.page(f"/v1/models/{model}")["example"]
        assert encrypted.post(model, page["request"]).json() == page["response"]
    many = {"instances": encrypted.page("/v1/models/image")["example"]["request"]["instances"] * 500}
    assert len(encrypted.post("image", many).json()["predictions"]) == 500
    body = orjson.dumps(many).ljust(3 * 2**20)
    chunks = (body[start : start + 10_000] for start in range(0, len(body), 10_000))
    headers = {"content-type": "application/json"}
    answer = encrypted.client.post("/v1/models/image/predict", content=chunks, headers=headers)
    assert len(answer.json()["predictions"]) == 500


def test_encrypted_pipeline(encrypted: Any) -> None:
    """Requests sent at once are answered in their order, and after the last one the connection closes."""
    body = orjson.dumps(encrypted.page("/v1/models/viewcount")["example"]["request"])
    head = b"POST /v1/models/viewcount/predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    with connect(encrypted) as client:
        for number in range(50):
            last = b"connection: close\r\n" if number == 49 else b""
            size = b"content-length: %d\r\n" % len(body)
            client.sendall(b"%b%b%bx-request-id: r%d\r\n\r\n%b" % (head, size, last, number, body))
        received = b""
        with suppress(ssl.SSLEOFError):
            while part := client.recv(65536):
                received += part
    assert received.count(b"HTTP/1.1 200 OK") == 50
    positions = [received.index(b"x-request-id: r%d\r\n" % number) for number in range(50)]
    assert positions == sorted(positions)


def test_the_wire_is_under_tls(encrypted: Any) -> None:
    """The headers are watched."""
    with connect(encrypted) as client:
        client.settimeout(LIMIT_SECONDS + 2)
        client.sendall(b"POST /v1/models/viewcount/predict HTTP/1.1\r\nhost: x\r\ncontent-")
        assert client.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_the_end_of_the_certificate_is_told(encrypted: Any) -> None:
    """The metrics say until when the certificate holds that callers see, by its serial number."""
    with connect(encrypted) as client:
        seen = client.getpeercert()
    assert seen is not None
    text = send(encrypted, "/metrics").text
    name = "lectern_tls_certificate_expiry_timestamp_seconds"
    (told,) = [line for line in text.splitlines() if line.startswith(f"{name}{{")]
    labels, _, value = told.removeprefix(name).partition(" ")
    serial = labels.removeprefix('{serial="').removesuffix('"}')
    assert int(serial, 16) == int(str(seen["serialNumber"]), 16)
    assert float(value) == ssl.cert_time_to_seconds(str(seen["notAfter"]))


def _environment(server: Any) -> str:
    return "\n".join(f"{name}={value}" for name, value in server.tree()[0].environ().items())


# Hostile connections

POST = b"POST /v1/models/viewcount/predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"
WISH = b"connection: upgrade\r\nupgrade: websocket\r\n"
LENGTH = b"content-length: %d\r\n\r\n" % MOST_SENT
# What each begins with, and goes on with.
HOSTILITIES = {
    "headers": (POST, b"a:\r\n" * 4000),
    "a header": (POST + b"a: ", b"b" * 16384),
    "trailers": (CHUNKED + b"2\r\n{}\r\n0\r\n", b"a:\r\n" * 4000),
    "trailers of a page": (CHUNKED.replace(b"POST", b"GET") + b"0\r\n", b"a:\r\n" * 4000),
    "extensions": (CHUNKED + b"2;", b"a" * 16384),
    "bodies": (CHUNKED, b"4000\r\n" + b"1" * 16384 + b"\r\n"),
    "whole bodies": (POST + LENGTH, b" " * 16384),
    "broken tensors": (POST.replace(b"v1", b"v2").replace(b"predict", b"infer") + LENGTH, b" " * 16384),
    "upgrades": (b"", (POST + WISH + b"content-length: 2\r\n\r\n{}") * 100),
    "upgraded": (b"GET / HTTP/1.1\r\nhost: x\r\n" + WISH + b"\r\n", b"\x81\xff" * 8192),
    "connections": (b"", b""),
}


@pytest.fixture(scope="module")
def besieged(launch: Any) -> Any:
    """A server that is attacked."""
    return launch(**IMPATIENT)


async def attack(port: int, first: bytes, more: bytes) -> None:
    """Send, read nothing, and wait for the end, which comes."""
    with suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        try:
            writer.write(first)
            async with asyncio.timeout(8):
                for _ in range(MOST_SENT // len(more) if more else 0):
                    writer.write(more)
                    await writer.drain()
                reader._transport.resume_reading()  # type: ignore[attr-defined]
                await reader.read()
        except TimeoutError:
            pass
        finally:
            writer.transport.abort()


def megabytes_taken(server: Any, kind: str, number: int) -> tuple[float, float]:
    """By how much the server's processes grow at most under an attack, and have grown when it is over."""

    def now() -> float:
        return float(sum(one.memory_info().rss for one in server.tree()) / 2**20)

    async def siege() -> float:
        await asyncio.gather(*(attack(server.port, *HOSTILITIES[kind]) for _ in range(5)))
        before = most = now()
        attacks = asyncio.gather(*(attack(server.port, *HOSTILITIES[kind]) for _ in range(number)))
        while not attacks.done():
            most = max(most, now())
            await asyncio.sleep(0.05)
        await asyncio.sleep(2)
        return most - before, now() - before

    return asyncio.run(siege())


@pytest.mark.parametrize("kind", HOSTILITIES)
def test_hostile_connections_take_little(besieged: Any, kind: str) -> None:
    """Two hundred of a kind take a few megabytes beside the room for bodies, give all back, and others are answered."""
    workers = [one.pid for one in besieged.tree()]
    page = besieged.page("/v1/models/viewcount")["example"]
    most, left = megabytes_taken(besieged, kind, HOSTILE)
    sys.stdout.write(f"200 of {kind}: {most:.1f} MB at most, {left:.1f} MB left\n")
    assert most <= MOST_MEGABYTES + ROOM_MEGABYTES.get(kind, 0.0)
    assert left <= MOST_MEGABYTES / 2
    assert besieged.post("viewcount", page["request"]).json() == page["response"]
    assert workers == [one.pid for one in besieged.tree()]


def test_hostile_handshakes_take_little(encrypted: Any) -> None:
    """So do those that never shake hands, and they are gone after five seconds."""
    most, left = megabytes_taken(encrypted, "connections", HOSTILE)
    assert most <= MOST_MEGABYTES
    assert left <= MOST_MEGABYTES / 2
    assert encrypted.get("/readyz").status_code == 200


@pytest.mark.parametrize("kind", ["headers", "trailers"])
def test_hostile_connections_are_seen(launch: Any, kind: str) -> None:
    """Control: a server that keeps what they send grows by more, with a tenth of them."""
    path = os.pathsep.join([str(PLANTED), str(REPOSITORY)])
    server = launch(**IMPATIENT, PYTHONPATH=path, **{NAMES: "keeps_headers"})
    most, _ = megabytes_taken(server, kind, HOSTILE // 10)
    assert most > MOST_MEGABYTES


def test_plain_text_is_refused(encrypted: Any) -> None:
    """A request without TLS gets no answer."""
    with socket.create_connection(("127.0.0.1", encrypted.port), timeout=10) as client:
        client.sendall(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n")
        received = b""
        with suppress(ConnectionError):
            while part := client.recv(1000):
                received += part
    assert b"HTTP" not in received


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1], ids=["1.0", "1.1"])
def test_old_versions_are_refused(encrypted: Any, authority: trustme.CA, version: ssl.TLSVersion) -> None:
    """A client that speaks only TLS older than 1.2, and can, gets nowhere."""
    context = client_context(authority, minimum=version, maximum=version)
    assert can_shake_hands(context, authority)
    with pytest.raises(ssl.SSLError):
        connect(encrypted, context)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_new_versions(encrypted: Any, authority: trustme.CA, version: ssl.TLSVersion) -> None:
    """TLS 1.2 and 1.3 are spoken."""
    with connect(encrypted, client_context(authority, minimum=version, maximum=version)) as client:
        assert client.version() == f"TLSv1.{version - ssl.TLSVersion.TLSv1_2 + 2}"


def test_weak_suites_are_refused(encrypted: Any, authority: trustme.CA) -> None:
    """Neither a suite without authenticated encryption nor one without forward secrecy is taken."""
    for suites in ("ECDHE-RSA-AES128-SHA:ECDHE-ECDSA-AES128-SHA", "AES128-GCM-SHA256"):
        context = client_context(authority, maximum=ssl.TLSVersion.TLSv1_2)
        context.set_ciphers(f"{suites}:@SECLEVEL=0")
        assert can_shake_hands(context, authority)
        with pytest.raises(ssl.SSLError):
            connect(encrypted, context)


# What the service itself calls

HOOK = """
import os, sys
_log = os.open(os.environ["AUDIT_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
_watched = ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname", "pickle.find_class")

def _hook(event, arguments):
    if event in _watched:
        os.write(_log, f"{os.getpid()} {event} {arguments!r}\\n".encode())

sys.addaudithook(_hook)
os.write(_log, f"{os.getpid()} start\\n".encode())
"""
PICKLES = (
    "application/vnd.bentoml+pickle",
    "application/x-pickle",
    "application/octet-stream",
    "application/python-pickle",
)
PICKLE = b"cbuiltins\nexec\n(S'raise SystemExit'\ntR."


class Trap:
    """A listening socket whose address is put into requests, and which nobody may ever reach."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/picture.png"

    def is_sprung(self) -> bool:
        try:
            self.socket.accept()[0].close()
        except BlockingIOError:
            return False
        return True


@pytest.fixture(scope="module")
def trap() -> Iterator[Trap]:
    found = Trap()
    yield found
    found.socket.close()


class Watched:
    """A server with an ear in each of its processes."""

    def __init__(self, launch: Any, folder: Path, placement: str) -> None:
        (folder / "sitecustomize.py").write_text(HOOK)
        self.log = folder / "audit.log"
        self.environment = {"PYTHONPATH": str(folder), "AUDIT_LOG": str(self.log)}
        self.server = launch(LECTERN_RUNNERS=placement, **self.environment)

    def events(self, name: str) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if line.split()[1] == name]


@pytest.fixture(scope="module", params=["embedded", "process"])
def watched(request: Any, launch: Any, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return Watched(launch, tmp_path_factory.mktemp("hook"), request.param)


def test_the_ears_hear(watched: Watched, trap: Trap, tmp_path: Path) -> None:
    """The hook is in every process of the server, and hears a connection, a name looked up and a pickle read."""
    started = {int(line.split()[0]) for line in watched.events("start")}
    assert {one.pid for one in watched.server.tree()} <= started
    log = tmp_path / "audit.log"
    code = (
        f"import socket, pickle; socket.create_connection(('127.0.0.1', {trap.url.split(':')[2].split('/')[0]}));"
        f"pickle.loads(b'cos\\ngetpid\\n(tR.')"
    )
    environment = {**os.environ, **watched.environment, "AUDIT_LOG": str(log)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=20)
    assert {"socket.connect", "socket.getaddrinfo", "pickle.find_class"} <= {
        line.split()[1] for line in log.read_text().splitlines()
    }
    assert trap.is_sprung()


def variants(value: Any, url: str) -> Iterator[Any]:
    """Yield the value with each of its parts in turn exchanged for a URL, and each text also for one in base64."""
    yield url
    if isinstance(value, str):
        yield base64.b64encode(url.encode()).decode()
    elif isinstance(value, list):
        for position in range(min(len(value), 2)):
            yield from ([*value[:position], other, *value[position + 1 :]] for other in variants(value[position], url))
    elif isinstance(value, dict):
        yield value | {url: url}
        for name in value:
            yield from (value | {name: other} for other in variants(value[name], url))


def bodies(server: Any, model: str, url: str) -> Iterator[tuple[str, bytes]]:
    """What could make a service fetch a URL: in every field, in fields that others have, as a file and as a picture."""
    page = server.page(f"/v1/models/{model}")
    request = page["example"]["request"]
    fields = {name for schema in page["schema"]["request"]["$defs"].values() for name in schema.get("properties", {})}
    for body in variants(request, url):
        yield "application/json", orjson.dumps(body)
    for name in sorted(fields | {"url", "image_url", "text", "$ref", "image"}):
        for value in (url, [url], {"$ref": url}, f"see {url} there", base64.b64encode(url.encode()).decode()):
            yield "application/json", orjson.dumps({"instances": [{name: value}]})
    picture = f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{url}"/></svg>'.encode()
    for media_type in (*page["media_types"], "image/svg+xml", "text/uri-list", "multipart/form-data; boundary=x"):
        yield media_type, url.encode()
        yield media_type, picture
        yield media_type, f'--x\r\ncontent-disposition: form-data; name="image"\r\n\r\n{url}\r\n--x--\r\n'.encode()


def test_no_url_is_fetched(watched: Watched, model: str, trap: Trap) -> None:
    """Whatever field holds a URL, nobody is called and no name is looked up."""
    trapped, asked = trap.url, 0
    for url in (trapped, "http://lectern-trap.invalid/picture.png"):
        for media_type, body in bodies(watched.server, model, url):
            answer = watched.server.post(model, body, content_type=media_type, referer=url, x_callback=url)
            assert answer.status_code in (200, 400, 415, 422), answer.text
            asked += 1
    assert asked > 100
    assert not trap.is_sprung()
    port = trapped.split(":")[2].split("/")[0]
    heard = [
        line for name in ("socket.connect", "socket.sendto", "socket.getaddrinfo") for line in watched.events(name)
    ]
    assert not [line for line in heard if port in line or "lectern-trap" in line]


def test_nobody_is_called(watched: Watched) -> None:
    """From start to now, no process of the server has gone farther than this machine."""
    names = ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname")
    heard = [line.split(" ", 1)[1] for name in names for line in watched.events(name)]
    assert not [line for line in heard if "127.0.0.1" not in line and "laddr=/" not in line and "AF_UNIX" not in line]


@pytest.mark.parametrize("media_type", PICKLES)
def test_pickles_are_refused(watched: Watched, model: str, media_type: str) -> None:
    """No content type makes a body a pickle, nor does a body make itself one."""
    assert watched.server.post(model, PICKLE, content_type=media_type).status_code == 415
    assert watched.server.post(model, PICKLE).status_code == 400
    for more in ({"runner-name": "x"}, {"payload-container": "x"}, {"bento-is-batch": "1"}):
        headers = {"content-type": media_type, **more}
        answer = watched.server.client.post(f"/v1/models/{model}/predict", content=PICKLE, headers=headers)
        assert answer.status_code == 415


def test_nothing_is_unpickled(watched: Watched) -> None:
    """With embedded runners no process of the server has read a name from a pickle, then or now."""
    if "LECTERN_RUNNERS=process" in _environment(watched.server):
        pytest.skip("arrays travel by pickle between the gateway and its own runners, over a private socket")
    assert not watched.events("pickle.find_class")
