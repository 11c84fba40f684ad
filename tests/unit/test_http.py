"""Which addresses, keys and pauses are taken, before anything is sent."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from harness.seeing import png_of
from tunesift import Completion, Failure, HttpModel, Message, ModelRefused, ParameterRefused, RecipeError, Sampling
from tunesift.images import picture
from tunesift.models import http
from tunesift.models.faults import asked_pause, exhausted, refusal
from tunesift.models.replies import streamed

DATE = "Thu, 01 Jan 2026 00:00:00 GMT"


@pytest.mark.parametrize(("headers", "seconds"), [
    ({"retry-after": "3"}, 3), ({"retry-after": "0.25"}, 0.25), ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
    ({"retry-after": "Thu, 01 Jan 2026 00:01:00 GMT", "date": DATE}, 60),
    ({"retry-after": "Wed, 31 Dec 2025 00:00:00 GMT", "date": DATE}, None),
    ({"retry-after": "-1"}, None), ({"retry-after": "inf"}, None), ({"retry-after": "NaN"}, None),
    ({"retry-after": "soon"}, None), ({"retry-after": ""}, None), ({}, None),
    ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, 360),
    ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "250ms"}, 0.25),
    ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1h2m3.5s"}, 3723.5),
    ({"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "1h"}, None),
    ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1767225600"}, None),
])  # fmt: skip
def test_a_pause_is_understood_in_every_form_and_nonsense_is_none(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert asked_pause(headers) == seconds


def test_what_is_left_is_a_pause_only_when_it_is_nothing() -> None:
    assert exhausted({"x-ratelimit-remaining": "1", "x-ratelimit-reset": "9"}) is None
    assert exhausted({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "9"}) == 9


@pytest.mark.parametrize(("url", "why"), [
    ("http://user:pass@localhost/v1", "no user, password or query"), ("http://key@localhost", "no user"),
    ("https://api.vendor.com/v1?key=abc", "query"), ("localhost:8000/v1", "no address"), ("ftp://x/v1", "no address"),
    ("http://", "no address"), ("http://localhost:99999/v1", "no address"), ("http://8.8.8.8/v1", "show key and prompts"),
    ("http://[2001:4860:4860::8888]/v1", "show key and prompts"),
])  # fmt: skip
def test_an_address_that_is_none_or_tells_a_secret_is_refused_without_repeating_it(url: str, why: str) -> None:
    with pytest.raises(RecipeError, match=why) as raised:
        HttpModel(url=url, model="m")
    assert not [secret for secret in ("pass", "key@", "abc") if secret in str(raised.value).replace("password", "")]


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/v1", "http://10.0.0.7/v1", "http://[::1]:1/v1", "http://gpu-3/v1",
                                 "https://api.vendor.com/v1", "https://8.8.8.8/v1"])  # fmt: skip
def test_an_address_of_ones_own_may_be_plain(url: str) -> None:
    assert HttpModel(url=url, model="m").url == url
    assert HttpModel(url="http://8.8.8.8/v1", model="m", insecure=True)


def test_the_key_itself_is_no_name_of_a_variable_and_is_not_repeated() -> None:
    with pytest.raises(RecipeError, match="never the key itself") as raised:
        HttpModel(url="https://a/v1", model="m", key_env="sk-1234567890abcdef")
    assert "1234" not in str(raised.value)


def test_a_variable_without_a_key_is_refused_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    model = HttpModel(url="https://127.0.0.1:1/v1", model="m", key_env="NO_SUCH_KEY")
    with pytest.raises(ModelRefused, match="NO_SUCH_KEY is not set") as raised:
        model.preflight()
    assert raised.value.exit_code == 77
    monkeypatch.setenv("NO_SUCH_KEY", "sk-secret\nX-Other: 1")
    with pytest.raises(ModelRefused, match="holds what is no key") as raised:
        model.preflight()
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(("settings", "why"), [
    ({"concurrency": 0}, "must be above 0"), ({"timeout_s": -1.0}, "must be above 0"),
    ({"parameters": {"n": 4}}, "parameters: n is set by the request itself"),
])  # fmt: skip
def test_settings_out_of_range_are_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(RecipeError, match=why):
        HttpModel(url="https://a/v1", model="m", **settings)


@pytest.mark.parametrize(("message", "code"), [
    ("This model's maximum context length is 4096 tokens. However, you requested 5000 tokens", "E631"),
    ("prompt is too long: 210000 tokens > 200000 maximum", "E631"),
    ("The input token count (40000) exceeds the maximum number of tokens allowed (32768)", "E631"),
    ("the request exceeds the available context size, try increasing it", "E631"),
    ("The response was filtered due to the prompt triggering content management policy", "E632"),
    ("Unsupported parameter: 'max_tokens' is not supported with this model", "E634"),
    ("something else", "E634"),
])  # fmt: skip
def test_what_endpoints_say_with_400_is_understood(message: str, code: str) -> None:
    assert refusal(400, {}, {"error": {"message": message}}).code == code


def test_a_refused_parameter_is_told_by_its_code_and_a_flagged_prompt_is_no_wrong_key() -> None:
    fault = refusal(400, {}, {"error": {"message": "no", "code": "unsupported_parameter", "param": "seed"}})
    assert (fault.blame, fault.code) == ("final", "E607")
    assert "it does not take seed" in fault.message
    assert refusal(403, {}, {"error": {"message": "Your input was flagged"}}).code == "E632"
    assert refusal(403, {}, {"error": {"message": "Forbidden"}}).code == "E604"


def test_a_request_that_no_minute_has_room_for_is_the_rows_own_fault() -> None:
    fault = refusal(
        429, {}, {"error": {"message": "Request too large for the model on tokens per min", "code": "tokens"}}
    )
    assert (fault.blame, fault.code) == ("row", "E633")


def test_a_stream_is_put_together_as_it_would_have_come_at_once() -> None:
    events = [
        'data: {"model": "m", "choices": [{"index": 0, "delta": {"role": "assistant", "content": "a"}}]}',
        ": a comment", 'event: x\r\ndata: {"choices": [{"index": 0, "delta": {"content": "\u00e9"}, "finish_reason": "stop"}]}',
        'data: {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}', "data: [DONE]",
    ]  # fmt: skip
    assert streamed("\r\n\r\n".join(events).encode()) == {
        "model": "m", "usage": {"prompt_tokens": 1, "completion_tokens": 2},
        "choices": [{"index": 0, "message": {"content": "a\u00e9"}, "finish_reason": "stop"}],
    }  # fmt: skip


def test_a_schema_is_never_dropped_in_silence() -> None:
    from tunesift import TransformersModel

    with pytest.raises(ParameterRefused, match="cannot be held to a JSON schema"):
        TransformersModel().chat([[Message("user", "x")]], Sampling(schema={"type": "object"}))


@dataclass
class Listener:
    """A server in this process that keeps what it was sent, and says something to it."""

    url: str
    bodies: list[dict[str, Any]]
    lines: list[str]


SAYS = {"choices": [{"index": n, "message": {"content": "yes"}, "finish_reason": "stop"} for n in range(3)],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1}}  # fmt: skip


@pytest.fixture
def listener() -> Iterator[Listener]:
    bodies: list[dict[str, Any]] = []
    lines: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            lines.append(self.path)
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            count = bodies[-1].get("n", 1)
            body = json.dumps(SAYS | {"model": bodies[-1]["model"], "choices": SAYS["choices"][:count]}).encode()  # type: ignore[index]
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True).start()
    yield Listener(f"http://127.0.0.1:{server.server_address[1]}/v1", bodies, lines)
    server.shutdown()
    server.server_close()


def test_a_request_says_what_was_asked_for_and_nothing_else(listener: Listener) -> None:
    model = HttpModel(url=listener.url, model="asked", parameters={"top_p": 0.9, "seed": None},
                      tokens_name="max_completion_tokens")  # fmt: skip
    schema = {"type": "object", "properties": {"rating": {"type": "integer"}}}
    sampling = Sampling(temperature=0.5, max_tokens=7, stop=("END",), schema=schema)
    (drawn,) = model.draws([[Message("system", "s"), Message("user", "u")]], sampling, 3)
    assert len(drawn) == 3  # type: ignore[arg-type]
    small, body = listener.bodies
    form = {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema, "strict": True}}
    common = {"model": "asked", "temperature": 0.5, "stop": ["END"], "top_p": 0.9, "response_format": form}
    said = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    assert body == common | {"messages": said, "n": 3, "max_completion_tokens": 7}
    assert small == common | {"messages": [{"role": "user", "content": "Say OK."}], "max_completion_tokens": 16}


def test_an_image_is_sent_as_it_is_in_its_file(listener: Listener, tmp_path: Path) -> None:
    raw = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
    (tmp_path / "a.png").write_bytes(raw)
    model = HttpModel(url=listener.url, model="seeing", images=tmp_path)
    (said,) = model.chat([[Message("user", "what?", images=("a.png",))]], Sampling())
    assert isinstance(said, Completion)
    image, text = listener.bodies[1]["messages"][0]["content"]
    assert text == {"type": "text", "text": "what?"}
    kind, _, coded = image["image_url"]["url"].partition(";base64,")
    assert (kind, base64.b64decode(coded)) == ("data:image/png", raw)


def sent(listener: Listener, home: Path, image: str) -> tuple[str, bytes]:
    """The kind and the bytes of an image that an endpoint got."""
    model = HttpModel(url=listener.url, model="seeing", images=home)
    (said,) = model.chat([[Message("user", "what?", images=(image,))]], Sampling())
    assert isinstance(said, Completion)
    part, _ = listener.bodies[-1]["messages"][0]["content"]
    kind, _, coded = part["image_url"]["url"].partition(";base64,")
    return kind, base64.b64decode(coded)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_an_image_that_is_plain_is_sent_as_it_is_from_its_file_and_from_the_row(
    listener: Listener, tmp_path: Path, kind: str
) -> None:
    images = pytest.importorskip("PIL.Image", reason='needs the "vision" extra')
    images.new("RGB", (4, 3), (200, 40, 40)).save(tmp_path / "a", kind)
    raw = (tmp_path / "a").read_bytes()
    in_row = f"data:image/{kind.lower()};base64,{base64.b64encode(raw).decode()}"
    assert sent(listener, tmp_path, "a") == sent(listener, tmp_path, in_row) == (f"data:image/{kind.lower()}", raw)


def not_plain(path: Path, how: str) -> None:
    """An image that whoever opens it carelessly sees otherwise than a model here."""
    from PIL import Image

    first, turned = Image.new("RGB", (4, 2), (0, 255, 0)), Image.Exif()
    first.putpixel((0, 0), (0, 0, 255))
    turned[0x0112] = 6  # by a quarter, clockwise
    deep = Image.new("I;16", (2, 2), 128 * 256)
    saved = {"turned": (first, "PNG", {"exif": turned}), "CMYK": (first.convert("CMYK"), "JPEG", {}),
             "frames": (first, "GIF", {"save_all": True, "append_images": [Image.new("RGB", (4, 2))]}),
             "deep": (deep, "PNG", {}), "BMP": (first, "BMP", {}), "alpha": (first.convert("RGBA"), "PNG", {})}  # fmt: skip
    image, kind, options = saved[how]
    image.save(path, kind, **options)


@pytest.mark.parametrize("how", ["turned", "CMYK", "frames", "deep", "BMP", "alpha"])
def test_an_endpoint_gets_any_other_image_as_a_model_here_sees_it(listener: Listener, tmp_path: Path, how: str) -> None:
    images = pytest.importorskip("PIL.Image", reason='needs the "vision" extra')
    not_plain(tmp_path / "a", how)
    seen = picture("a", tmp_path)
    in_row = f"data:image/png;base64,{base64.b64encode((tmp_path / 'a').read_bytes()).decode()}"
    for name in ("a", in_row):
        kind, raw = sent(listener, tmp_path, name)
        got = images.open(io.BytesIO(raw))
        assert (kind, got.format, got.mode, got.size) == ("data:image/png", "PNG", "RGB", seen.size)
        assert got.tobytes() == seen.tobytes()


@pytest.mark.parametrize("side", [7_000, 60_000])
def test_an_image_of_too_many_pixels_is_sent_to_nobody(listener: Listener, tmp_path: Path, side: int) -> None:
    pytest.importorskip("PIL.Image", reason='needs the "vision" extra')
    (tmp_path / "a.png").write_bytes(png_of(side))
    model = HttpModel(url=listener.url, model="seeing", images=tmp_path)
    (failure,) = model.chat([[Message("user", "what?", images=("a.png",))]], Sampling())
    assert failure == Failure("unreadable", "E638 the image has more than 40,000,000 pixels")
    assert listener.bodies == []


def test_what_is_too_large_as_png_is_sent_as_jpeg(
    listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = pytest.importorskip("PIL.Image", reason='needs the "vision" extra')
    noise = images.effect_noise((200, 200), 90)  # grey, and larger as PNG than as JPEG
    noise.save(tmp_path / "a.jpg", quality=95)
    small = (tmp_path / "a.jpg").stat().st_size
    monkeypatch.setattr("tunesift.models.http.MOST_IMAGE", small + 2000)
    out = io.BytesIO()
    picture("a.jpg", tmp_path).save(out, "PNG")
    assert len(out.getvalue()) > small + 2000
    kind, raw = sent(listener, tmp_path, "a.jpg")
    assert (kind, images.open(io.BytesIO(raw)).mode) == ("data:image/jpeg", "RGB")


@pytest.mark.parametrize(("image", "said"), [
    ("data:image/png;base64,????", "is not valid base64"), ("data:text/plain;base64,aGVsbG8=", "is no PNG, JPEG"),
    ("\ud800.png", "outside the data set's folder"),
])  # fmt: skip
def test_an_image_that_is_none_is_not_sent(listener: Listener, tmp_path: Path, image: str, said: str) -> None:
    model = HttpModel(url=listener.url, model="seeing", images=tmp_path)
    (failure,) = model.chat([[Message("user", "what?", images=(image,))]], Sampling())
    assert isinstance(failure, Failure)
    assert failure.message.startswith("E638")
    assert said in failure.message
    assert listener.bodies == []


def test_a_proxy_of_the_environment_is_taken_only_where_it_is_wanted(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, elsewhere = listener.url.removesuffix("/v1"), "http://10.255.255.1:9/v1"
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, proxy)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RecipeError, match="through a proxy is read by the proxy"):
        HttpModel(url=elsewhere, model="p1", trust_env=True).preflight()
    HttpModel(url=elsewhere, model="p2", trust_env=True, insecure=True).preflight()
    assert listener.lines == [f"{elsewhere}/chat/completions"], "the proxy was asked for the whole address"
    HttpModel(url=listener.url, model="p3").preflight()
    assert listener.lines[1:] == ["/v1/chat/completions"], "and nobody else"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    HttpModel(url=listener.url, model="p4", trust_env=True).preflight()
    assert listener.lines[2:] == ["/v1/chat/completions"]


def test_a_proxy_of_a_kind_that_is_not_spoken_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "socks5://127.0.0.1:1")
    with pytest.raises(RecipeError, match="names a socks5 proxy; only http:// proxies are spoken to"):
        HttpModel(url="https://api.vendor.example/v1", model="m", trust_env=True).preflight()


class OneAtATime:
    """A tokenizer of letters that fails where two threads use it, as those of transformers do."""

    added_tokens_decoder: dict[int, object] = {}  # noqa: RUF012
    unk_token_id = None
    busy = False

    def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
        assert not self.busy, "Already borrowed"
        self.busy = True
        time.sleep(0.001)
        self.busy = False
        return {"input_ids": [ord(c) for c in text]}

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


def test_threads_take_turns_at_a_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    one = OneAtATime()
    monkeypatch.setattr(http, "tokenizer", lambda name: one)
    model = HttpModel(url="http://127.0.0.1:1/v1", model="m", tokenizer="t")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: model.single_tokens(["5", "12", "x"]), range(20)))
    assert found == [[53, None, 120]] * 20


@pytest.mark.parametrize(
    ("code", "blame"), [("0500" + "0" * 5000, "transient"), ("429", "limited"), ("4290", "transient")]
)
def test_a_code_is_a_status_where_it_has_three_digits(code: str, blame: str) -> None:
    assert refusal(200, {}, {"error": {"code": code, "message": "no"}}).blame == blame
