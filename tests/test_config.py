"""The settings of `start`: where they come from, how they are written, how they are refused."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesos_actor.actors import config as config_module
from mesos_actor.actors.config import (
    Part,
    StartConfig,
    default_work_dir,
    load_config,
    master_addresses,
    own_hosts,
    own_master,
    parse_masters,
    part_of,
)
from mesos_actor.actors.core.settings import AgentSettings, MasterSettings
from mesos_actor.actors.errors import ConfigError
from mesos_actor.actors.ids import Address
from mesos_actor.actors.resources import Resources


def load(
    options: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None, file: Path | None = None
) -> StartConfig:
    return load_config(options or {}, environ or {}, file)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "start.toml"


def test_nothing_given_is_a_cluster_of_this_host_with_every_default() -> None:
    config = load()

    assert config == StartConfig(hostname=socket.gethostname(), work_dir=config.work_dir)
    assert config.work_dir.is_absolute()
    assert (config.sources, config.from_environment()) == ({}, {})
    assert part_of(config, ()) == Part("both", 5_050)


# -- where settings come from


def test_options_go_before_environment_before_file_before_defaults(file: Path) -> None:
    file.write_text('port = 1\nlog_level = "debug"\nhostname = "f"\n[master]\noffer_timeout = "1s"\nmax_agents = 7\n')
    environ = {"MESOS_ACTOR_PORT": "2", "MESOS_ACTOR_HOSTNAME": "e", "MESOS_ACTOR_MASTER_OFFER_TIMEOUT": "2s"}

    config = load({"port": 3, "insecure": None}, environ, file)

    assert (config.port, config.hostname, config.log_level, config.insecure) == (3, "e", "debug", False)
    assert (config.master.offer_timeout_ms, config.master.max_agents) == (2_000, 7)
    assert config.sources == {
        "port": "option --port",
        "hostname": "MESOS_ACTOR_HOSTNAME",
        "log_level": str(file),
        "master.offer_timeout_ms": "MESOS_ACTOR_MASTER_OFFER_TIMEOUT",
        "master.max_agents": str(file),
    }
    assert config.from_environment() == {
        "hostname": "MESOS_ACTOR_HOSTNAME",
        "master.offer_timeout_ms": "MESOS_ACTOR_MASTER_OFFER_TIMEOUT",
    }


def test_every_setting_can_be_given_in_each_place(file: Path, tmp_path: Path) -> None:
    values = {
        "masters": "h1:5050,h2:5050",
        "as": "agent",
        "port": "5051",
        "bind": "0.0.0.0",
        "advertise": "10.0.0.7",
        "hostname": "worker-7",
        "work_dir": str(tmp_path / "w"),
        "key_dir": str(tmp_path / "k"),
        "insecure": "true",
        "initialize": "false",
        "replace": "true",
        "resources": "cpus:4;gpus:0",
        "attributes": "rack:2",
        "isolation": "cgroups",
        "cgroup_root": "/sys/fs/cgroup/mine/",
        "containerizers": "docker, mine",
        "volume_roots": "/srv/data, /scratch",
        "confine_all": "true",
        "container_subnet": "10.200.0.0/20",
        "log_json": "on",
        "log_level": "error",
    }
    file.write_text("".join(f'{name} = "{value}"\n' for name, value in values.items()))

    by_file = load(file=file)
    by_environment = load(environ={f"MESOS_ACTOR_{name.upper()}": value for name, value in values.items()})
    by_options = load({name.replace("_", "-"): value for name, value in values.items()})

    assert {*values} == {*config_module._READERS}
    assert msgspec.structs.replace(by_file, sources={}) == msgspec.structs.replace(by_options, sources={})
    assert msgspec.structs.replace(by_environment, sources={}) == msgspec.structs.replace(by_options, sources={})
    assert (by_options.role_as, by_options.initialize, by_options.replace) == ("agent", False, True)
    assert str(by_options.resources) == "cpus:4"
    assert by_options.without == {"gpus"}
    assert (by_options.isolation, by_options.cgroup_root) == ("cgroups", "/sys/fs/cgroup/mine")
    assert by_options.containerizers == ("docker", "mine")


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("isolation", "cgroup", "did you mean"),
        (
            "container_subnet",
            "8.8.0.0/16",
            "is not one for private use (RFC 1918); write a private network like 172.30",
        ),
        ("container_subnet", "x", "is no IPv4 network"),
        ("cgroup_root", "mine", "is not an absolute path; name a directory below /sys/fs/cgroup"),
        ("cgroup_root", "/sys/fs/cgroup/../..", "is not an absolute path"),
        ("containerizers", "a,,b", "is no list of names, each once"),
        ("containerizers", "a,a", "is no list of names, each once"),
    ],
)
def test_isolation_that_cannot_be_read_is_refused(name: str, value: str, text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"--{name.replace('_', '-')}")) as caught:
        load({name: value})
    assert text in str(caught.value)


def test_toml_values_may_have_their_own_types(file: Path) -> None:
    file.write_text('masters = ["h1", "[FD00::1]:5051"]\nport = 0\ninsecure = true\n[agent]\nmax_tasks = 5\n')

    config = load(file=file)

    assert config.masters == ("h1:5050", "[fd00::1]:5051")
    assert (config.port, config.insecure, config.agent) == (0, True, {"max_tasks": 5})


def test_the_file_may_be_named_by_option_or_environment(file: Path) -> None:
    file.write_text("port = 1\n")

    assert load({"config": str(file)}).port == 1
    assert load({}, {"MESOS_ACTOR_CONFIG": str(file)}).port == 1
    assert load({"config": str(file)}, {"MESOS_ACTOR_CONFIG": "/does/not/exist"}).port == 1


def test_variables_that_an_agent_gives_its_tasks_are_no_settings() -> None:
    environ = {
        "MESOS_ACTOR_AGENT": "tcp://h/agent",
        "MESOS_ACTOR_EXECUTOR_KEY": "x",
        "MESOS_ACTOR_INDEX": "3",
        "HOME": "/",
    }

    assert load(environ=environ).sources == {}


def test_an_empty_variable_is_not_set() -> None:
    assert load(environ={"MESOS_ACTOR_MASTERS": "", "MESOS_ACTOR_PORT": " "}).sources == {}


def test_every_nested_setting_is_a_whole_number() -> None:
    for table, kind in (("master", MasterSettings), ("agent", AgentSettings)):
        kinds = {field.name: field.type for field in msgspec.structs.fields(kind)}
        assert {kinds[name] for name in config_module._TABLES[table]} == {int}


@pytest.mark.parametrize(
    ("text", "duration_ms"),
    [
        ("500ms", 500),
        ("30s", 30_000),
        ("1.5s", 1_500),
        ("10min", 600_000),
        ("1h", 3_600_000),
        ("2d", 172_800_000),
        ("1w", 604_800_000),
        ("5secs", 5_000),
        ("2 mins", 120_000),
        ("1hrs", 3_600_000),
        ("1days", 86_400_000),
    ],
)
def test_durations_carry_their_unit(text: str, duration_ms: int) -> None:
    assert load({"master.offer_timeout": text}).master.offer_timeout_ms == duration_ms


def test_a_name_with_its_unit_takes_a_bare_number() -> None:
    config = load({"master.offer_timeout_ms": 250}, {"MESOS_ACTOR_AGENT_UPDATE_RETRY_MS": "1000"})

    assert (config.master.offer_timeout_ms, config.agent) == (250, {"update_retry_ms": 1_000})


@pytest.mark.parametrize(
    ("value", "size_bytes"),
    [(5, 5), ("5", 5), ("500MiB", 500 << 20), ("1.5 gb", 3 << 29), ("1TiB", 1 << 40)],
)
def test_sizes_may_carry_a_unit(value: object, size_bytes: int) -> None:
    config = load({"agent.images_max_bytes": value})

    assert config.agent_settings(Resources()).images_max_bytes == size_bytes
    assert load().agent_settings(Resources()).images_max_bytes == 20 << 30


def test_some_limits_may_be_zero() -> None:
    config = load({"master.max_completed_frameworks": 0, "agent.gc_delay": "0s"})

    assert (config.master.max_completed_frameworks, config.agent) == (0, {"gc_delay_ms": 0})


def test_agent_settings_hold_what_was_given() -> None:
    config = load({"masters": "h1", "attributes": "rack:2", "hostname": "w", "agent.max_tasks": 9})

    settings = config.agent_settings(Resources.of(cpus=4), version="1.2")

    assert settings == AgentSettings(
        hostname="w",
        masters=(Address("tcp://h1:5050/master"),),
        resources=Resources.of(cpus=4),
        attributes=config.attributes,
        version="1.2",
        max_tasks=9,
    )
    assert config.agent_settings(Resources(), (Address("/master"),)).masters == (Address("/master"),)


def test_resources_and_attributes_may_lie_in_files(tmp_path: Path) -> None:
    resources, attributes = tmp_path / "my resources.json", tmp_path / "attributes"
    resources.write_text('[{"name": "cpus", "type": "SCALAR", "scalar": {"value": 2.5}}]\n')
    attributes.write_text("rack:2\n")

    config = load({"resources": resources.as_uri(), "attributes": f"file://{attributes}"})

    assert (str(config.resources), str(config.attributes)) == ("cpus:2.5", "rack:2")


# -- refusals


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"port": "x"}, "--port: 'x' is not a whole number; write one from 0 to 65535"),
        ({"port": 65_536}, "--port: 65536 is out of range; write a number from 0 to 65535"),
        ({"port": True}, "is not a whole number"),
        ({"port": "__"}, "is not a whole number"),
        ({"as": "boss"}, "--as: 'boss' is not a choice; use one of: agent, auto, both, master"),
        ({"as": "masters"}, "did you mean 'master'?"),
        ({"log_level": "loud"}, "--log-level: 'loud' is not a choice"),
        ({"insecure": "maybe"}, "--insecure: 'maybe' is neither true nor false; write true or false"),
        ({"bind": "a b"}, "--bind: 'a b' is not a host"),
        ({"bind": "[zz]"}, "--bind: '[zz]' is not an IPv6 address"),
        ({"hostname": ""}, "--hostname: '' is not a host"),
        ({"work_dir": ""}, "--work-dir: '' is not a path"),
        ({"work_dir": "~nobody-of-that-name/x"}, "names no home directory"),
        ({"resources": "cpus:x"}, "--resources: resources: cpus: 'x' is not a number"),
        ({"resources": "file://relative"}, "is not an absolute path; write file:///path/to/file"),
        (
            {"resources": "file:///does/not/exist"},
            "--resources: cannot read /does/not/exist: No such file",
        ),
        ({"attributes": "rack"}, "--attributes: attributes: 'rack' has no value"),
        ({"attributes": 5}, "--attributes: 5 is not a text; put it in quotes"),
        ({"works_dir": "x"}, "options: '--works-dir' is not an option; did you mean 'work_dir'?"),
        ({"master.offer_timeout": "30"}, "--master.offer-timeout: '30' is not a duration; write a duration like 500ms"),
        ({"master.offer_timeout": 30}, "is not a duration"),
        ({"master.offer_timeout": "30 fortnights"}, "is not a duration"),
        ({"master.offer_timeout": "0.5ms"}, "is not a whole number of milliseconds"),
        ({"master.offer_timeout": "0s"}, "is no time at all"),
        ({"master.offer_timeout": "999999w"}, "is longer than ten years"),
        ({"master.offer_timeout_ms": -5}, "is out of range"),
        ({"master.max_agents": 0}, "is out of range; write a number from 1 to 1000000000"),
        ({"master.max_outstanding_share_permille": 1_001}, "write a number from 1 to 1000"),
        ({"master.offer_timeout": "1s", "master.offer_timeout_ms": 5}, "says offer_timeout_ms a second time"),
        (
            {"agent.update_retry": "1h"},
            "update_retry_ms of [agent] (option --agent.update-retry): 3600000 is above update_retry_max_ms, 600000",
        ),
        (
            {"agent.update_retry_max": "1s"},
            "10000 is above update_retry_max_ms, 1000; lower the one or",
        ),
        ({"agent.hostname": "x"}, "is not an option"),
        ({"agent.images_max_bytes": 0}, "0 is out of range; write a number from 1 to"),
        ({"agent.images_max_bytes": "2T"}, "'2T' is not a size; write a size like 500MiB or 20GiB"),
        ({"agent.images_max_bytes": "20 apples"}, "'20 apples' is not a size; write a size like 500MiB or 20GiB"),
        ({"agent.images_max_bytes": "0.0001KiB"}, "is not a whole number of bytes from 1 to"),
        ({"agent.images_max_bytes": "99999999TiB"}, "is not a whole number of bytes from 1 to"),
    ],
)
def test_a_bad_option_is_refused_with_field_value_and_fix(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        load(options)

    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        (
            {"MESOS_ACTOR_MASTRES": "h"},
            "environment: 'MESOS_ACTOR_MASTRES' is not a setting; did you mean 'MESOS_ACTOR_MASTERS'?",
        ),
        ({"MESOS_ACTOR_PORT": "x"}, "MESOS_ACTOR_PORT: 'x' is not a whole number"),
        (
            {"MESOS_ACTOR_AGENT_GC_DELAY": "1d", "MESOS_ACTOR_AGENT_GC_DELAY_MS": "5"},
            "MESOS_ACTOR_AGENT_GC_DELAY_MS: '5' says gc_delay_ms a second time",
        ),
    ],
)
def test_a_bad_variable_is_refused_by_its_name(environ: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        load(environ=environ)

    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"port = ", "is not TOML"),
        (b"\xff", "is not UTF-8 text"),
        (b"prot = 1", "'prot' is not a setting; did you mean 'port'?"),
        (b"master = 1", "1 is not a table; write [master] and its settings below it"),
        (
            b"[master]\noffer_timout = '3s'",
            "is not a setting of [master]; did you mean 'offer_timeout'?",
        ),
        (b"[agent]\noffer_timeout = '3s'", "'offer_timeout' is not a setting of [agent]"),
        (b"[agent]\ngc_delay = '3s'\ngc_delay_ms = 3", "says gc_delay_ms a second time"),
        (b"[agent]\ngc_delay = 3.5", "gc_delay of [agent] in"),
        (b"port = 1.5", "port in "),
        (b"masters = [1]", "is not a text"),
        (b"x = " + b"[" * 100_000, "is not TOML"),
        (b"#" * ((1 << 20) + 1), "is larger than 1048576 bytes"),
    ],
)
def test_a_bad_file_is_refused_by_its_name(content: bytes, words: str, file: Path) -> None:
    file.write_bytes(content)

    with pytest.raises(ConfigError) as refusal:
        load(file=file)

    assert words in str(refusal.value)
    assert str(file) in str(refusal.value)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "absent", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=f"config: cannot read {path}: {reason}"):
            load({"config": str(path)})


@given(st.binary(max_size=40) | st.text(alphabet='masterportg = [].\n"1_', max_size=40).map(str.encode))
def test_any_file_is_read_or_refused(content: bytes) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile() as opened:
        opened.write(content)
        opened.flush()
        try:
            load(file=Path(opened.name))
        except ConfigError:
            return


# -- masters


@pytest.mark.parametrize(
    ("text", "masters"),
    [
        ("h1:5050,h2:5051", ("h1:5050", "h2:5051")),
        (" H1 , h2.example:1 ", ("h1:5050", "h2.example:1")),
        ("[::1]:5050,[fd00::2]", ("[::1]:5050", "[fd00::2]:5050")),
        ("10.0.0.1", ("10.0.0.1:5050",)),
    ],
)
def test_masters_are_hosts_and_ports(text: str, masters: tuple[str, ...]) -> None:
    assert parse_masters(text) == masters
    assert parse_masters(",".join(masters)) == masters


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "masters: '' has no host; write HOST:PORT"),
        ("h1:5050,", "has no"),
        (":5050", "masters: ':5050' has no host; write HOST:PORT"),
        ("h1:", "has no port number"),
        ("h1:http", "masters: 'h1:http' has no port number; write HOST:PORT, like 10.0.0.1:5050"),
        ("h1:0", "is out of range; write a number from 1 to 65535"),
        ("h1:65536", "is out of range"),
        ("h1:5050,H1", "masters: 'H1' is named twice; name each master once"),
        ("::1:5050", "is ambiguous; put an IPv6 address in brackets"),
        ("tcp://h1:5050", "is not HOST:PORT; leave out tcp:// and any path"),
        ("h 1:5050", "is not a host"),
        ("[x]:5050", "is not an IPv6 address"),
        (",".join(f"h{i}" for i in range(65)), "names 65 masters; name 1 to 64"),
    ],
)
def test_bad_masters_are_refused_with_value_and_fix(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse_masters(text)

    assert words in str(refusal.value)


def test_no_masters_at_all_are_refused() -> None:
    with pytest.raises(ConfigError, match="names 0 masters"):
        parse_masters([])


def test_masters_have_mailboxes() -> None:
    assert master_addresses(("h1:5050", "[::1]:5050")) == ("tcp://h1:5050/master", "tcp://[::1]:5050/master")


@pytest.mark.parametrize(
    ("options", "own", "part"),
    [
        ({}, (), Part("both", 5_050)),
        ({"port": 0}, (), Part("both", 0)),
        ({"as": "master"}, (), Part("master", 5_050)),
        ({"masters": "h1,h2"}, ("h1",), Part("master", 5_050)),
        ({"masters": "h1:6000,h2"}, ("h1",), Part("master", 6_000)),
        ({"masters": "h1,h2"}, (), Part("agent", 0)),
        ({"masters": "h1,h2", "port": 5_051}, ("h1",), Part("agent", 5_051)),
        ({"masters": "h1,h2", "port": 0}, ("h1",), Part("agent", 0)),
        ({"masters": "h1:1,h1:2", "port": 2}, ("h1",), Part("master", 2)),
        ({"masters": "h1:1,h1:2", "as": "agent"}, ("h1",), Part("agent", 0)),
        ({"masters": "h1", "as": "both"}, ("h1",), Part("both", 5_050)),
        ({"masters": "h1", "as": "master"}, (), Part("master", 5_050)),
    ],
)
def test_a_process_is_a_master_when_its_own_address_is_in_the_list(
    options: dict[str, object], own: tuple[str, ...], part: Part
) -> None:
    assert part_of(load(options), own) == part


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"as": "agent"}, "as: 'agent' has no master to join; add --masters HOST:PORT"),
        ({"masters": "h1:1,h1:2"}, "names this host 2 times; say which one this is with --port, or --as agent"),
    ],
)
def test_a_process_that_cannot_know_what_it_is_says_so(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        part_of(load(options), ("h1",))

    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"masters": "h2,h3,h4", "initialize": True},
            "initialize: True is for masters, and this process is none of h2:5050, h3:5050, h4:5050; leave it out, or",
        ),
        (
            {"masters": "h1,h2,h3", "as": "agent", "replace": True},
            "replace: True is for masters, and this process was started --as agent; leave it out, or name this host's",
        ),
        ({"masters": "h1", "replace": True}, "replace: True needs other masters to learn from; restore a backup with"),
        ({"replace": True}, "replace: True needs other masters to learn from"),
    ],
)
def test_a_registry_is_begun_where_one_will_be(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        part_of(load(options), ("h1",))

    assert words in str(refusal.value)


def test_a_master_is_told_how_its_registry_begins() -> None:
    for options in ({"masters": "h1,h2,h3", "initialize": True}, {"masters": "h1,h2,h3", "replace": True}):
        assert part_of(load(options), ("h1",)) == Part("master", 5_050)
    for alone in ({"initialize": True}, {"as": "master", "initialize": True}, {"masters": "h1", "initialize": True}):
        assert part_of(load(alone), ("h1",)).role != "agent"


def test_a_registry_is_not_begun_in_two_ways(file: Path) -> None:
    file.write_text("replace = true\n")

    with pytest.raises(ConfigError) as refusal:
        load({"initialize": True}, file=file)

    assert f"initialize (option --initialize) and replace ({file}): one begins a new" in str(refusal.value)
    assert load({"initialize": True, "replace": False}, file=file).initialize


@pytest.mark.parametrize(
    ("options", "own", "entry"),
    [
        ({}, (), "127.0.0.1:5050"),
        ({"as": "master", "port": 0}, (), "127.0.0.1:0"),
        ({"masters": "h1,h2,h3"}, ("h2",), "h2:5050"),
        ({"masters": "H1:1,h2:2,[FD00::1]:3", "as": "master"}, ("fd00::1",), "[fd00::1]:3"),
        ({"masters": "h1:1,h1:2,h1:3", "port": 2}, ("h1",), "h1:2"),
        ({"masters": "h1,h2,h3", "as": "master", "advertise": "H3"}, (), "h3:5050"),
        ({"masters": "h1,h2,h3", "as": "master", "advertise": "h3"}, ("h1", "h3"), "h3:5050"),
        ({"masters": "h1,h2,h3,h4,h5,h6,h7"}, ("h7",), "h7:5050"),
        ({"masters": "h1", "as": "master"}, (), "h1:5050"),
        ({"masters": "h1", "as": "both"}, ("h1",), "h1:5050"),
    ],
)
def test_a_master_finds_its_own_entry(options: dict[str, object], own: tuple[str, ...], entry: str) -> None:
    config = load(options)
    part = part_of(config, own) if len(own) < 2 else Part("master", 5_050)

    assert own_master(config, part, own) == entry


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"masters": "h1,h2"},
            "masters: h1:5050,h2:5050 are 2: an even number tolerates no more failures than one less; name 1, 3 or 5",
        ),
        ({"masters": "h1,h2,h3,h4"}, "are 4: an even number"),
        ({"masters": ",".join(f"h{n}" for n in range(1, 10))}, "are 9: each write waits for a majority of them"),
        ({"masters": ",".join(f"h{n}" for n in range(1, 9))}, "more than 7 are slower"),
        ({"masters": "h1,h2,h3", "as": "both"}, "as: 'both' is a cluster of this host alone; start a master and an"),
        (
            {"masters": "h2,h3,h4", "as": "master"},
            "masters: h2:5050,h3:5050,h4:5050 has no entry for this host with port 5050; give each master the same",
        ),
        ({"masters": "h1,h2,h3", "as": "master", "port": 5_051}, "has no entry for this host with port 5051"),
        ({"masters": "h1,h2,h3", "as": "master", "advertise": "x"}, "has no entry for x with port 5050"),
        ({"masters": "h1,h1.local,h3", "as": "master", "port": 5_050}, "has 2 entries for this host with port 5050"),
    ],
)
def test_a_list_of_masters_that_cannot_be_is_refused(options: dict[str, object], words: str) -> None:
    config, own = load(options), ("h1", "h1.local")

    with pytest.raises(ConfigError) as refusal:
        own_master(config, part_of(config, own), own)

    assert words in str(refusal.value)


def test_this_host_is_known_by_name_and_by_address() -> None:
    masters = (f"{socket.gethostname()}:5050", "localhost:5051", "127.0.0.1:5052", "192.0.2.1:5050")

    assert own_hosts(masters) == {socket.gethostname().lower(), "localhost", "127.0.0.1"}


def test_state_is_kept_where_the_system_keeps_it() -> None:
    assert default_work_dir({}, is_root=True) == Path("/var/lib/mesos-actor")
    assert default_work_dir({"XDG_STATE_HOME": "/s"}, is_root=False) == Path("/s/mesos-actor")
    assert default_work_dir({"XDG_STATE_HOME": "s"}, is_root=False) == Path.home() / ".local/state/mesos-actor"
