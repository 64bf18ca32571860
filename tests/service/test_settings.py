"""Settings: defaults, every variable, one line for each that does not fit."""

from pathlib import Path

import pytest
import yaml

from models.errors import SettingsError
from models.paths import REPOSITORY
from models.runtime.device import ConvolutionSearch, Device, Padding
from service.settings import PREFIX, LogForm, Placement, Settings, parse, settings
from service.settings.environment import bentoml_environment

EVERY = {
    "host": ("0.0.0.0", "0.0.0.0"),
    "port": ("3001", 3001),
    "device": ("cpu", Device.CPU),
    "devices": ("image=cuda, viewcount=cpu", "image=cuda, viewcount=cpu"),
    "gpu_tf32": ("true", True),
    "gpu_convolution_search": ("default", ConvolutionSearch.DEFAULT),
    "gpu_memory_bytes": ("1073741824", 2**30),
    "gpu_leaves_to_cpu": ("true", True),
    "padding": ("always", Padding.ALWAYS),
    "runners": ("process", Placement.PROCESS),
    "workers": ("4", 4),
    "models": ("image, tagging:1.0.0,", "image, tagging:1.0.0,"),
    "data": ("/data", "/data"),
    "home": ("/home", "/home"),
    "threads": ("8", 8),
    "wire": ("false", False),
    "max_body_bytes": ("2048", 2048),
    "max_arriving_bytes": ("67108864", 2**26),
    "max_instances": ("7", 7),
    "queue_limit": ("9000", 9000),
    "queue_seconds": ("0.25", 0.25),
    "keep_alive_seconds": ("5", 5.0),
    "max_connections": ("64", 64),
    "body_timeout_seconds": ("0.5", 0.5),
    "request_timeout_seconds": ("2", 2.0),
    "keys": ("a; b", "a; b"),
    "keys_file": ("/keys", "/keys"),
    "requests_per_second": ("0.5", 0.5),
    "tls_certificate": ("/certificate.pem", "/certificate.pem"),
    "tls_key": ("/key.pem", "/key.pem"),
    "trusted_keys": ("a.pub, b.pub", "a.pub, b.pub"),
    "jobs_root": ("/inputs", "/inputs"),
    "jobs_queued": ("5", 5),
    "jobs_running": ("3", 3),
    "jobs_workers": ("3", 3),
    "jobs_upload_bytes": ("2048", 2048),
    "jobs_memory_bytes": ("536870912", 2**29),
    "jobs_seconds": ("3600", 3600.0),
    "jobs_rows": ("1000", 1000),
    "jobs_output_bytes": ("1048576", 2**20),
    "jobs_keep_seconds": ("60", 60.0),
    "log_requests": ("0.25", 0.25),
    "traces": ("console", "console"),
    "demo": ("true", True),
    "log": ("text", LogForm.TEXT),
}


def test_defaults() -> None:
    """Without variables: this machine only, port 3000, the device that is there, every model."""
    found = parse({"PATH": "/bin", "LECTERNX": "1", "lectern_port": "9"})
    assert found == Settings()
    assert (found.host, found.port, found.device, found.runners) == ("127.0.0.1", 3000, Device.AUTO, Placement.AUTO)
    assert (found.workers, found.threads, found.wanted_models) == (1, None, ())
    assert (found.max_body_bytes, found.max_instances, found.queue_limit) == (16 * 2**20, 1024, 4096)
    assert (found.queue_seconds, found.body_timeout_seconds, found.request_timeout_seconds) == (1.0, 10.0, 30.0)


def test_every_variable() -> None:
    """Every field is set by its variable, and this test knows every field."""
    assert tuple(EVERY) == Settings.__struct_fields__
    pairs = {"tls_certificate": {"LECTERN_TLS_KEY": "k"}, "tls_key": {"LECTERN_TLS_CERTIFICATE": "c"}}
    for field, (text, value) in EVERY.items():
        found = parse({PREFIX + field.upper(): text, **pairs.get(field, {})})
        assert getattr(found, field) == value != getattr(Settings(), field)
    everything = parse({PREFIX + field.upper(): text for field, (text, _) in EVERY.items()})
    assert everything == Settings(**{field: value for field, (_, value) in EVERY.items()})
    assert everything.wanted_models == ("image", "tagging:1.0.0")
    assert everything.trusted_entries == ("a.pub", "b.pub")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("LECTERN_PROT", "LECTERN_PORT"),
        ("LECTERN_WORKER", "LECTERN_WORKERS"),
        ("LECTERN_KEY_FILE", "LECTERN_KEYS_FILE"),
        ("LECTERN_LOGS", "LECTERN_LOG"),
        ("LECTERN_TIMEOUT_SECONDS", "LECTERN_BODY_TIMEOUT_SECONDS"),
    ],
)
def test_unknown_variable(name: str, meant: str) -> None:
    """A misspelt variable is an error that says what was meant, not a default in silence; its value is not told."""
    with pytest.raises(SettingsError) as caught:
        parse({name: "a secret"})
    assert str(caught.value) == f"unknown setting {name}; did you mean {meant}?"


def test_unknown_variable_like_none() -> None:
    """What is like no setting is answered with all of them."""
    with pytest.raises(SettingsError) as caught:
        parse({"LECTERN_COLOUR": "green"})
    known = ", ".join(f"LECTERN_{field.upper()}" for field in EVERY)
    assert str(caught.value) == f"unknown setting LECTERN_COLOUR; known are {known}"


def test_all_faults_at_once() -> None:
    """Who mends one setting does not find the next one at the next start."""
    wrong = {"LECTERN_PROT": "1", "LECTERN_WORKERS": "0", "LECTERN_DEVICES": "image", "LECTERN_TLS_KEY": "key.pem"}
    with pytest.raises(SettingsError) as caught:
        parse(wrong)
    assert str(caught.value).split("; ") == [
        "unknown setting LECTERN_PROT",
        "did you mean LECTERN_PORT?",
        "LECTERN_WORKERS must be a whole number from 1 to 64, got '0'",
        "LECTERN_DEVICES: 'image' is not model=auto, model=cpu or model=cuda",
        "LECTERN_TLS_CERTIFICATE and LECTERN_TLS_KEY are set together or not at all",
    ]


# What a kubelet writes for a Service with a named and a nameless port (``kubectl exec POD -- env``).
LINKS = {
    "{}_SERVICE_HOST": "10.96.12.7",
    "{}_SERVICE_PORT": "3000",
    "{}_SERVICE_PORT_HTTP_METRICS": "3000",
    "{}_PORT": "tcp://10.96.12.7:3000",
    "{}_PORT_3000_TCP": "tcp://10.96.12.7:3000",
    "{}_PORT_3000_TCP_PROTO": "tcp",
    "{}_PORT_3000_TCP_PORT": "3000",
    "{}_PORT_3000_TCP_ADDR": "10.96.12.7",
    "{}_PORT_53_UDP": "udp://10.96.12.7:53",
}


@pytest.mark.parametrize("service", ["LECTERN", "LECTERN_PREDICTOR", "LECTERN_JOBS_2"])
def test_services_of_kubernetes(service: str) -> None:
    """What Kubernetes says of a Service in every pod is no setting, whatever the Service is called."""
    links = {name.format(service): value for name, value in LINKS.items()}
    assert parse(links) == Settings()
    assert parse({"LECTERN_WORKERS": "2", **links}) == Settings(workers=2)


@pytest.mark.parametrize("name", ["LECTERN_SERVICE_HOSTS", "LECTERN_JOBS_PORT", "LECTERN_PORT_3000", "LECTERN_TCP"])
def test_no_services_of_kubernetes(name: str) -> None:
    """What is only like it is an unknown setting."""
    with pytest.raises(SettingsError, match=f"unknown setting {name}"):
        parse({name: "3001"})


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("LECTERN_PORT", "0", "a whole number from 1 to 65535"),
        ("LECTERN_PORT", "65536", "a whole number from 1 to 65535"),
        ("LECTERN_PORT", "http", "a whole number from 1 to 65535"),
        ("LECTERN_PORT", "", "a whole number from 1 to 65535"),
        ("LECTERN_PORT", "3000.5", "a whole number from 1 to 65535"),
        ("LECTERN_WORKERS", "65", "a whole number from 1 to 64"),
        ("LECTERN_THREADS", "-1", "a whole number from 1 to 256, or empty"),
        ("LECTERN_DEVICE", "gpu", "auto, cpu or cuda"),
        ("LECTERN_GPU_MEMORY_BYTES", "1", "a whole number of at least 16777216, or empty"),
        ("LECTERN_GPU_CONVOLUTION_SEARCH", "best", "heuristic, default or exhaustive"),
        ("LECTERN_PADDING", "some", "auto, always or never"),
        ("LECTERN_RUNNERS", "remote", "auto, embedded or process"),
        ("LECTERN_LOG", "yaml", "json or text"),
        ("LECTERN_DEMO", "yes", "true or false"),
        ("LECTERN_MAX_BODY_BYTES", "1023", "a whole number of at least 1024"),
        ("LECTERN_MAX_INSTANCES", "0", "a whole number of at least 1"),
        ("LECTERN_BODY_TIMEOUT_SECONDS", "0", "a number above 0"),
        ("LECTERN_LOG_REQUESTS", "2", "a number from 0 to 1"),
        ("LECTERN_REQUESTS_PER_SECOND", "0", "a number from 0.001 to 1000000, or empty"),
        ("LECTERN_REQUESTS_PER_SECOND", "many", "a number from 0.001 to 1000000, or empty"),
        ("LECTERN_REQUEST_TIMEOUT_SECONDS", "soon", "a number above 0"),
    ],
)
def test_bad_value(name: str, text: str, allowed: str) -> None:
    """A value that does not fit is one sentence: the variable, what is allowed, what was found."""
    with pytest.raises(SettingsError) as caught:
        parse({name: text})
    assert str(caught.value) == f"{name} must be {allowed}, got {text!r}"


@pytest.mark.parametrize("name", ["LECTERN_THREADS", "LECTERN_GPU_MEMORY_BYTES", "LECTERN_REQUESTS_PER_SECOND"])
def test_empty(name: str) -> None:
    """Empty is what the documentation says it is: the default."""
    assert parse({name: ""}) == Settings()


@pytest.mark.parametrize("entry", ["image:cuda", "image=gpu"])
def test_bad_device_of_a_model(entry: str) -> None:
    """An entry that is none is quoted."""
    with pytest.raises(SettingsError) as caught:
        parse({"LECTERN_DEVICES": f"viewcount=cpu,{entry}"})
    assert str(caught.value) == f"LECTERN_DEVICES: {entry!r} is not model=auto, model=cpu or model=cuda"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"LECTERN_MAX_BODY_BYTES": "67108864"},
            "LECTERN_MAX_ARRIVING_BYTES must be at least LECTERN_MAX_BODY_BYTES, 67108864, got 33554432",
        ),
        ({"LECTERN_QUEUE_LIMIT": "9"}, "LECTERN_QUEUE_LIMIT must be at least LECTERN_MAX_INSTANCES, 1024, got 9"),
        (
            {"LECTERN_TLS_KEY": "key.pem"},
            "LECTERN_TLS_CERTIFICATE and LECTERN_TLS_KEY are set together or not at all",
        ),
    ],
)
def test_settings_that_contradict_each_other(wrong: dict[str, str], message: str) -> None:
    """A request that is allowed and can never fit in would be told to try again for ever."""
    with pytest.raises(SettingsError) as caught:
        parse(wrong)
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ["nan", "NaN", "-inf", "1e999"])
def test_times_are_numbers(text: str) -> None:
    """A time limit that compares with nothing, or is no number, is refused."""
    with pytest.raises(SettingsError):
        parse({"LECTERN_REQUEST_TIMEOUT_SECONDS": text})


@pytest.mark.parametrize(
    ("device", "runners", "has_cuda", "uses_cuda", "placement"),
    [
        ("auto", "auto", False, False, Placement.EMBEDDED),
        ("auto", "auto", True, True, Placement.PROCESS),
        ("cpu", "auto", True, False, Placement.EMBEDDED),
        ("cuda", "auto", False, True, Placement.PROCESS),
        ("auto", "process", False, False, Placement.PROCESS),
        ("cuda", "embedded", True, True, Placement.EMBEDDED),
    ],
)
def test_auto(
    device: str, runners: str, has_cuda: bool, uses_cuda: bool, placement: Placement, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``auto`` takes the GPU where there is one, and processes of their own for its runners."""
    monkeypatch.setattr("service.settings.has_cuda", lambda: has_cuda)
    found = parse({"LECTERN_DEVICE": device, "LECTERN_RUNNERS": runners})
    assert (found.uses_cuda, found.placement) == (uses_cuda, placement)


def test_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process's settings are read on first use and then stay."""
    settings.cache_clear()
    monkeypatch.setenv("LECTERN_PORT", "4000")
    first = settings()
    monkeypatch.setenv("LECTERN_PORT", "5000")
    assert settings() is first
    assert first.port == 4000
    settings.cache_clear()


def test_settings_do_not_change() -> None:
    """Settings are frozen."""
    with pytest.raises(AttributeError):
        Settings().port = 1  # type: ignore[misc]


def test_bentoml_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """BentoML is told not to report usage, and where its home is."""
    monkeypatch.setenv("BENTOML_HOME", "/somewhere")
    found = bentoml_environment()
    assert (found["BENTOML_DO_NOT_TRACK"], found["BENTOML_HOME"]) == ("True", "/somewhere")
    assert found["FORWARDED_ALLOW_IPS"] == ""
    monkeypatch.delenv("BENTOML_HOME")
    assert bentoml_environment()["BENTOML_HOME"] == str(Path.home() / "bentoml")


@pytest.mark.parametrize(
    "name", ["LECTERN_KEYS_FILE", "LECTERN_TLS_CERTIFICATE", "LECTERN_TLS_KEY", "LECTERN_JOBS_ROOT"]
)
def test_files_are_found_from_elsewhere(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file is named from where the service is started, and found from where it runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, "secrets/file")
    assert bentoml_environment()[name] == str(tmp_path / "secrets" / "file")
    monkeypatch.setenv(name, "")
    assert bentoml_environment()[name] == ""


def test_documented() -> None:
    """docs/operations.md has a row for every setting, with its default."""
    page = REPOSITORY / "docs" / "operations.md"
    if not page.exists():
        pytest.skip("docs/operations.md is not written yet")
    rows = [line.split("|") for line in page.read_text().splitlines() if line.startswith("| `LECTERN_")]
    documented = {row[1].strip(" `"): row[2].strip(" `") for row in rows}
    assert documented.keys() == {PREFIX + field.upper() for field in Settings.__struct_fields__}
    for field in Settings.__struct_fields__:
        default = getattr(Settings(), field)
        text = f"{default:g}" if isinstance(default, float) else "" if default is None else str(default).lower()
        assert documented[PREFIX + field.upper()] == (text or "empty")


def test_documented_manifest() -> None:
    """The manifest for Kubernetes keeps the variables about Services out of the pod."""
    page = (REPOSITORY / "docs" / "operations.md").read_text()
    manifest = next(block for block in page.split("```")[1::2] if "kind: InferenceService" in block)
    assert yaml.safe_load(manifest.removeprefix("yaml"))["spec"]["predictor"]["enableServiceLinks"] is False
