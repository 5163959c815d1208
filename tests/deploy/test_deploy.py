"""The files under deploy/ fit each other and the package, as far as that shows without a cluster."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from framefold.pipeline import spec
from framefold.pipeline.cli import main

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"

JOB_FIELDS = {
    "entrypoint",
    "submissionMode",
    "backoffLimit",
    "shutdownAfterJobFinishes",
    "ttlSecondsAfterFinished",
    "activeDeadlineSeconds",
    "rayClusterSpec",
}
"""Those of RayJob.spec that are used here; a name that is none of them is a misspelling."""
CLUSTER_FIELDS = {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
HEAD_FIELDS = {"rayStartParams", "template"}
WORKER_FIELDS = HEAD_FIELDS | {"groupName", "replicas", "minReplicas", "maxReplicas"}
POD_FIELDS = {"securityContext", "containers", "volumes"}
CONTAINER_FIELDS = {"name", "image", "resources", "volumeMounts"}
MAX_RAYJOB_NAME = 47
"""KubeRay appends to it and keeps below the 63 characters of a DNS label."""
DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    return read_pins(ROOT / "constraints.txt")


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def dockerfile() -> list[tuple[str, str]]:
    return read_dockerfile((DEPLOY / "Dockerfile").read_text())


@pytest.fixture(scope="module")
def documents() -> dict[str, Any]:
    parsed = yaml.safe_load_all((DEPLOY / "rayjob.yaml").read_text())
    return {document["kind"]: document for document in parsed}


@pytest.fixture(scope="module")
def job(documents: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = documents["RayJob"]["spec"]
    return found


@pytest.fixture(scope="module")
def pods(job: dict[str, Any]) -> dict[str, Any]:
    """Pod specs by group; the head's group is called `head`."""
    cluster = job["rayClusterSpec"]
    workers = {group["groupName"]: group["template"]["spec"] for group in cluster["workerGroupSpecs"]}
    return {"head": cluster["headGroupSpec"]["template"]["spec"], **workers}


def read_pins(path: Path) -> dict[str, str]:
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines if line)}


def read_dockerfile(text: str) -> list[tuple[str, str]]:
    """(INSTRUCTION, rest) of every instruction, continuation lines joined."""
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    lines = code.replace("\\\n", " ").splitlines()
    return [(name.upper(), rest.strip()) for name, _, rest in (line.partition(" ") for line in lines if line.strip())]


def every(dockerfile: list[tuple[str, str]], instruction: str) -> list[str]:
    return [rest for name, rest in dockerfile if name == instruction]


def copied(dockerfile: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """(source in the repository, destination in the image) of every COPY."""
    folder = "/"
    for name, rest in dockerfile:
        if name == "WORKDIR":
            folder = rest
        if name == "COPY":
            *sources, target = shlex.split(rest)
            yield from ((source, str(PurePosixPath(folder) / target)) for source in sources)


# The image


def test_the_base_image_is_pinned_and_of_a_python_that_the_package_accepts(
    dockerfile: list[tuple[str, str]], pyproject: dict[str, Any]
) -> None:
    (base,) = every(dockerfile, "FROM")
    found = re.fullmatch(r"python:(\d+\.\d+)(\.\d+)?-slim-[a-z]+", base)
    assert found, f"{base!r} does not name Python minor version, variant and Debian release"
    assert SpecifierSet(pyproject["project"]["requires-python"]).contains(f"{found[1]}.0")


def test_the_user_is_a_number_other_than_root(dockerfile: list[tuple[str, str]], pods: dict[str, Any]) -> None:
    user = every(dockerfile, "USER")[-1]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    for pod in pods.values():
        security = pod["securityContext"]
        assert f"{security['runAsUser']}:{security['runAsGroup']}" == user
        assert security["runAsNonRoot"] is True
        assert security["fsGroup"] == security["runAsGroup"]


def test_no_entrypoint_stands_in_the_way_of_the_operators_shell(dockerfile: list[tuple[str, str]]) -> None:
    assert not every(dockerfile, "ENTRYPOINT")
    assert every(dockerfile, "CMD") == ['["bash"]']


def test_everything_is_installed_with_both_constraint_files(dockerfile: list[tuple[str, str]]) -> None:
    targets = {target for _, target in copied(dockerfile)}
    assert "/build" in targets
    installs = [run for run in every(dockerfile, "RUN") if "pip install" in run]
    assert "\"$(grep '^torch==' constraints.txt)\"" in installs[0]
    assert "--no-deps" in installs[0]
    for run in installs[1:]:
        assert "-c constraints.txt -c constraints-cluster.txt" in run


def test_the_torch_build_can_be_chosen_and_is_cpu_by_default(dockerfile: list[tuple[str, str]]) -> None:
    (argument,) = every(dockerfile, "ARG")
    name, _, default = argument.partition("=")
    assert default.endswith("/whl/cpu")
    assert any(f'--index-url "${name}"' in run for run in every(dockerfile, "RUN"))
    assert f"--build-arg {name}=" in (DEPLOY / "README.md").read_text()


def test_what_is_copied_exists_and_is_sent_to_the_builder(dockerfile: list[tuple[str, str]]) -> None:
    ignored, *patterns = [
        line
        for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert ignored == "*"
    sent = {pattern[1:] for pattern in patterns if pattern.startswith("!")}
    sources = {source for source, _ in copied(dockerfile)}
    assert sources == sent
    assert not [source for source in sources if not (ROOT / source).exists()]


def test_the_image_holds_what_the_package_is_built_from(
    dockerfile: list[tuple[str, str]], pyproject: dict[str, Any]
) -> None:
    sources = {source for source, _ in copied(dockerfile)}
    project = pyproject["project"]
    links = {path.name for path in (ROOT / "src/framefold").iterdir() if path.is_symlink()}
    assert {"pyproject.toml", project["readme"], *project["license-files"], "src"} | links <= sources


def test_the_second_constraint_file_adds_only_what_rays_extra_needs(
    pins: dict[str, str], pyproject: dict[str, Any]
) -> None:
    added = read_pins(DEPLOY / "constraints-cluster.txt")
    assert all(re.fullmatch(r"\d+(\.\w+)+", version) for version in added.values())
    assert not set(added) & set(pins), "pinned twice: the two files would drift apart"
    assert {"aiohttp-cors", "grpcio", "opencensus"} <= set(added), (
        "the job server of ray[default] cannot run without them"
    )
    (ray,) = (one for one in map(Requirement, pyproject["project"]["dependencies"]) if one.name == "ray")
    assert ray.specifier.contains(pins["ray"])


# The job


def test_only_known_fields_are_used_and_the_required_ones_are_there(
    documents: dict[str, Any], job: dict[str, Any], pods: dict[str, Any]
) -> None:
    assert set(documents) == {"PersistentVolumeClaim", "RayJob"}
    assert documents["RayJob"]["apiVersion"] == "ray.io/v1"
    assert set(job) == JOB_FIELDS
    cluster = job["rayClusterSpec"]
    assert set(cluster) == CLUSTER_FIELDS
    assert set(cluster["headGroupSpec"]) == HEAD_FIELDS
    for group in cluster["workerGroupSpecs"]:
        assert set(group) == WORKER_FIELDS
    for pod in pods.values():
        assert set(pod) == POD_FIELDS
        (container,) = pod["containers"]
        assert set(container) == CONTAINER_FIELDS


def test_names_are_such_as_kuberay_accepts(documents: dict[str, Any], pods: dict[str, Any]) -> None:
    name = documents["RayJob"]["metadata"]["name"]
    assert len(name) <= MAX_RAYJOB_NAME
    labels = [name, *pods, *(pod["containers"][0]["name"] for pod in pods.values())]
    assert [label for label in labels if not DNS_LABEL.fullmatch(label)] == []


def test_the_cluster_goes_away_and_a_hanging_job_ends(job: dict[str, Any]) -> None:
    assert job["submissionMode"] == "K8sJobMode"
    assert job["shutdownAfterJobFinishes"] is True
    assert isinstance(job["ttlSecondsAfterFinished"], int)
    assert job["ttlSecondsAfterFinished"] >= 0
    assert isinstance(job["activeDeadlineSeconds"], int)
    assert job["activeDeadlineSeconds"] > 0
    assert job["backoffLimit"] == 2


def test_the_ray_of_the_cluster_is_the_pinned_one(job: dict[str, Any], pins: dict[str, str]) -> None:
    assert job["rayClusterSpec"]["rayVersion"] == pins["ray"]


def test_all_files_name_one_image_with_the_packages_version(pods: dict[str, Any], pyproject: dict[str, Any]) -> None:
    image = f"framefold:{pyproject['project']['version']}"
    assert {pod["containers"][0]["image"] for pod in pods.values()} == {image}
    for file in ("Dockerfile", "README.md", "rayjob.yaml"):
        named = re.findall(r"framefold:\d[\w.]*", (DEPLOY / file).read_text())
        assert set(named) == {image}, file


def test_start_parameters_are_strings_and_the_head_does_no_work(job: dict[str, Any]) -> None:
    cluster = job["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


def test_pods_have_limits_and_no_more_than_they_request(pods: dict[str, Any]) -> None:
    for pod in pods.values():
        resources = pod["containers"][0]["resources"]
        assert resources["limits"] == resources["requests"]
        assert re.fullmatch(r"\d+", resources["limits"]["cpu"])
        assert re.fullmatch(r"\d+Gi", resources["limits"]["memory"])


def test_what_is_written_lies_on_one_shared_volume(
    documents: dict[str, Any], pods: dict[str, Any], dockerfile: list[tuple[str, str]]
) -> None:
    claim = documents["PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    written = f"{every(dockerfile, 'WORKDIR')[-1]}/out"
    for pod in pods.values():
        (mount,) = pod["containers"][0]["volumeMounts"]
        assert mount["mountPath"] == written
        (volume,) = (one for one in pod["volumes"] if one["name"] == mount["name"])
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


# The pipeline that they run


def test_the_entrypoint_runs_a_sound_pipeline_of_the_image_on_the_cluster(
    job: dict[str, Any], dockerfile: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    command, subcommand, file, *options = shlex.split(job["entrypoint"])
    assert (command, subcommand, options) == ("pipeline", "run", ["--address", "auto"])
    home = every(dockerfile, "WORKDIR")[-1]
    assert (file, home) in set(copied(dockerfile))
    monkeypatch.chdir(ROOT)
    assert main(["check", file]) == 0


def test_the_pipeline_reads_and_writes_where_the_cluster_can(
    job: dict[str, Any], dockerfile: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    checked = spec.load(shlex.split(job["entrypoint"])[2])
    in_image = [source for source, target in copied(dockerfile) if target.startswith("/home/framefold")]
    read = [Path(node.config.model_dump()["path"]) for node in checked.graph if node.is_source]
    written = [Path(node.config.model_dump()["path"]) for node in checked.graph if node.is_sink]
    assert [path for path in read if path.parts[0] not in in_image] == []
    assert [path for path in [*written, checked.run_dir] if path.parts[0] != "out"] == []


def test_the_workers_have_the_cores_that_the_pipeline_reserves(
    job: dict[str, Any], pods: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    checked = spec.load(shlex.split(job["entrypoint"])[2])
    reserved = sum(node.replicas * (node.resources.cpus or 0) for node in checked.graph)
    groups = job["rayClusterSpec"]["workerGroupSpecs"]
    offered = sum(
        group["minReplicas"] * int(pods[group["groupName"]]["containers"][0]["resources"]["limits"]["cpu"])
        for group in groups
    )
    assert 0 < reserved <= offered
    for group in groups:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
