from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from clothing_classifier.cli import main


def serve(*options: str, **environment: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["serve", *options], env=environment)
    return result.exit_code, result.output


def test_a_port_that_is_taken_is_named(tiny_model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, output = serve("--model", str(tiny_model), "--port", str(port))
    assert code == 2
    assert output.startswith(f"Error: cannot listen on 127.0.0.1, port {port} (")


def test_an_address_that_is_not_this_machines_is_named(tiny_model: Path) -> None:
    code, output = serve("--model", str(tiny_model), "--host", "192.0.2.1")
    assert code == 2
    assert "cannot listen on 192.0.2.1" in output


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a..b", "x" * 64])
def test_a_host_that_does_not_exist_is_named(tiny_model: Path, host: str) -> None:
    code, output = serve("--model", str(tiny_model), "--host", host)
    assert code == 2
    assert output.startswith(f"Error: cannot listen on {host}")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--max-megapixels", "nan"),
        ("--max-megapixels", "inf"),
        ("--timeout", "inf"),
        ("--threshold", "nan"),
        ("--allow-host", "http://shop.example/"),
    ],
)
@pytest.mark.parametrize("key", [{}, {"CLOTHING_API_KEY": "secret"}])
def test_a_value_that_cannot_be_used_is_named(tiny_model: Path, option: str, value: str, key: dict[str, str]) -> None:
    code, output = serve("--model", str(tiny_model), "--port", "0", option, value, **key)
    assert code == 2
    assert value in output
    assert "CLOTHING_API_KEY" not in output


def test_a_model_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"x")
    code, output = serve("--model", str(path), "--port", "0")
    assert code == 2
    assert "model.onnx" in output


@pytest.mark.parametrize("key", ["", "two\nlines", "schlüssel"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(tiny_model: Path, key: str) -> None:
    code, output = serve("--model", str(tiny_model), "--port", "0", CLOTHING_API_KEY=key)
    assert code == 2
    assert "CLOTHING_API_KEY" in output
    assert not key or key not in output


def test_the_key_is_no_option() -> None:
    assert "--api-key" not in serve("--help")[1]
    assert "CLOTHING_API_KEY" in serve("--help")[1]


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "prometheus_client", "python_multipart"])
def test_without_the_extra_it_says_how_to_install_it(package: str, tiny_model: Path) -> None:
    code = f"""
import sys
sys.modules[{package!r}] = None
from clothing_classifier.cli import main
main(["serve", "--model", {str(tiny_model)!r}, "--port", "0"])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.returncode == 2
    assert run.stderr.startswith(f"Error: the service needs {package}")
    assert 'pip install "clothing-classifier[serve]"' in run.stderr
