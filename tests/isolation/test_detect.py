"""What an agent offers when nobody says: Mesos' rules, with every measured value passed in."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from mesos_actor.actors.resources import MIB, Resources
from mesos_actor.isolation.detect import Measured, detect, measure

GB = 1_024 * MIB


def measured(
    cpus: int | None = 8,
    mem_bytes: int | None = 16 * GB,
    disk_bytes: int | None = 100 * GB,
    usable_cpus: int | None = 8,
) -> Measured:
    return Measured(cpus=cpus, usable_cpus=usable_cpus, mem_bytes=mem_bytes, disk_bytes=disk_bytes)


def test_a_host_keeps_one_gb_of_memory_and_five_of_disk() -> None:
    found = detect(Resources(), measured())

    assert str(found.resources) == "cpus:8;disk:97280;mem:15360;ports:[31000-32000]"
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("mem_bytes", "mem_mb"),
    [(2 * GB, 1_024), (2 * GB - 1, 1_023), (GB, 512), (3 * GB + MIB // 2, 2_048), (3 * MIB, 1)],
)
def test_memory_below_two_gb_is_halved(mem_bytes: int, mem_mb: int) -> None:
    assert detect(Resources(), measured(mem_bytes=mem_bytes)).resources.scalar("mem") == mem_mb * 1_000


@pytest.mark.parametrize(("disk_bytes", "disk_mb"), [(10 * GB, 5_120), (10 * GB - MIB, 5_119), (4 * GB, 2_048)])
def test_disk_below_ten_gb_is_halved(disk_bytes: int, disk_mb: int) -> None:
    assert detect(Resources(), measured(disk_bytes=disk_bytes)).resources.scalar("disk") == disk_mb * 1_000


def test_what_is_declared_for_any_role_is_not_detected() -> None:
    declared = Resources.parse("cpus(eng):2;mem:1GB;ports:[80-80];licences:3")

    found = detect(declared, measured())

    assert str(found.resources) == "cpus(eng):2;disk:97280;licences:3;mem:1024;ports:[80-80]"


def test_what_is_declared_absent_is_not_detected() -> None:
    found = detect(Resources.of(cpus=1), measured(), without=["ports", "disk"])

    assert str(found.resources) == "cpus:1;mem:15360"


def test_what_cannot_be_measured_has_a_default_and_a_warning() -> None:
    found = detect(Resources(), measured(None, None, None, None))

    assert str(found.resources) == "cpus:1;disk:10240;mem:1024;ports:[31000-32000]"
    assert [warning.partition(":")[0] for warning in found.warnings] == ["cpus", "mem", "disk"]
    assert "declare mem in --resources" in found.warnings[1]


def test_fewer_usable_cores_are_warned_about_and_not_subtracted() -> None:
    found = detect(Resources(), measured(cpus=8, usable_cpus=2))

    assert found.resources.millicpus() == 8_000
    assert "may use only 2; declare cpus:2 in --resources" in found.warnings[0]
    assert detect(Resources.of(cpus=2), measured(cpus=8, usable_cpus=2)).warnings == ()


def test_this_host_can_be_measured_even_before_the_work_directory_exists(tmp_path: Path) -> None:
    found = measure(tmp_path / "not" / "there" / "yet")

    assert found.cpus is not None and found.cpus >= 1
    assert found.mem_bytes is not None and found.mem_bytes > MIB
    assert found.disk_bytes == psutil.disk_usage(str(tmp_path)).total
    assert detect(Resources(), found).resources.error() is None


def test_a_host_that_cannot_be_measured_raises_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no /proc here")

    monkeypatch.setattr(psutil, "virtual_memory", refuse)
    monkeypatch.setattr(psutil, "disk_usage", refuse)

    found = measure(tmp_path)

    assert (found.mem_bytes, found.disk_bytes) == (None, None)
    assert detect(Resources(), found).resources.mem_bytes() == GB
