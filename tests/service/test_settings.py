"""Settings: defaults, every variable, one line for each that does not fit."""

from pathlib import Path

import pytest

from models.datasets import REPOSITORY
from models.device import ConvolutionSearch, Device, Padding
from models.errors import SettingsError
from service.settings import PREFIX, LogForm, Placement, Settings, bentoml_environment, parse, settings

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
    "threads": ("8", 8),
    "wire": ("false", False),
    "max_body_bytes": ("2048", 2048),
    "max_arriving_bytes": ("4096", 4096),
    "max_instances": ("7", 7),
    "queue_limit": ("9", 9),
    "queue_seconds": ("0.25", 0.25),
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
    "jobs_running": ("2", 2),
    "jobs_workers": ("3", 3),
    "jobs_upload_bytes": ("2048", 2048),
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
    for field, (text, value) in EVERY.items():
        found = parse({PREFIX + field.upper(): text})
        assert getattr(found, field) == value != getattr(Settings(), field)
    everything = parse({PREFIX + field.upper(): text for field, (text, _) in EVERY.items()})
    assert everything == Settings(**{field: value for field, (_, value) in EVERY.items()})
    assert everything.wanted_models == ("image", "tagging:1.0.0")
    assert everything.trusted_entries == ("a.pub", "b.pub")


def test_unknown_variable() -> None:
    """A misspelt variable is an error that names the known ones, not a default in silence."""
    with pytest.raises(SettingsError) as caught:
        parse({"LECTERN_PROT": "3001"})
    known = ", ".join(f"LECTERN_{field.upper()}" for field in EVERY)
    assert str(caught.value) == f"unknown setting LECTERN_PROT; known are {known}"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("LECTERN_PORT", "0", "Expected `int` >= 1"),
        ("LECTERN_PORT", "65536", "Expected `int` <= 65535"),
        ("LECTERN_PORT", "http", "Expected `int`, got `str`"),
        ("LECTERN_PORT", "", "Expected `int`, got `str`"),
        ("LECTERN_PORT", "3000.5", "Expected `int`, got `str`"),
        ("LECTERN_WORKERS", "65", "Expected `int` <= 64"),
        ("LECTERN_THREADS", "-1", "Expected `int` >= 1"),
        ("LECTERN_DEVICE", "gpu", "Invalid enum value 'gpu'"),
        ("LECTERN_DEVICES", "image:cuda", "'image:cuda' is not model=auto, model=cpu or model=cuda"),
        ("LECTERN_DEVICES", "image=gpu", "'image=gpu' is not model=auto, model=cpu or model=cuda"),
        ("LECTERN_GPU_MEMORY_BYTES", "1", "Expected `int` >= 16777216"),
        ("LECTERN_GPU_CONVOLUTION_SEARCH", "best", "Invalid enum value 'best'"),
        ("LECTERN_PADDING", "some", "Invalid enum value 'some'"),
        ("LECTERN_RUNNERS", "remote", "Invalid enum value 'remote'"),
        ("LECTERN_LOG", "yaml", "Invalid enum value 'yaml'"),
        ("LECTERN_MAX_BODY_BYTES", "1023", "Expected `int` >= 1024"),
        ("LECTERN_MAX_INSTANCES", "0", "Expected `int` >= 1"),
        ("LECTERN_QUEUE_LIMIT", "0", "Expected `int` >= 1"),
        ("LECTERN_BODY_TIMEOUT_SECONDS", "0", "Expected `float` > 0.0"),
        ("LECTERN_REQUESTS_PER_SECOND", "0", "Expected `float` >= 0.001"),
        ("LECTERN_REQUESTS_PER_SECOND", "many", "Expected `float | null`, got `str`"),
        ("LECTERN_REQUEST_TIMEOUT_SECONDS", "soon", "Expected `float`, got `str`"),
    ],
)
def test_bad_value(name: str, text: str, message: str) -> None:
    """A value that does not fit is one line with the variable and what was expected."""
    with pytest.raises(SettingsError) as caught:
        parse({name: text})
    assert str(caught.value) == f"{name}: {message}"


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
