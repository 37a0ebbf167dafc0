"""The settings of `mesos-actor start`: options go before environment, environment before a TOML file, that before
the defaults.

A setting `work_dir` is `--work-dir` on the command line, `MESOS_ACTOR_WORK_DIR` in the environment and
`work_dir = "..."` in the file that `--config` or `MESOS_ACTOR_CONFIG` names. Relative paths start at the current
directory. The tables `[master]` and `[agent]` of the file hold what `MasterSettings` and `AgentSettings` declare:
`offer_timeout = "30s"` or `offer_timeout_ms = 30000`; in the environment, `MESOS_ACTOR_MASTER_OFFER_TIMEOUT=30s`.
A name that nobody knows is an error, wherever it stands. Every error is a ConfigError: field, value and fix.
"""

from __future__ import annotations

import os
import socket
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args
from urllib.parse import unquote

import msgspec

from mesos_actor.actors import config_values, resource_text
from mesos_actor.actors.config_part import Part, RoleAs, own_hosts, own_master, part_of
from mesos_actor.actors.config_values import (
    DEFAULT_MASTER_PORT,
    master_addresses,
    nearest,
    parse_masters,
    refused,
)
from mesos_actor.actors.core import environment
from mesos_actor.actors.core.container_network import DEFAULT_SUBNET
from mesos_actor.actors.core.settings import AgentSettings, MasterSettings
from mesos_actor.actors.errors import ConfigError, InvalidInput
from mesos_actor.actors.ids import Address
from mesos_actor.actors.logs import Level
from mesos_actor.actors.resources import Attributes, Resources

__all__ = [
    "DEFAULT_MASTER_PORT",
    "ENVIRONMENT_PREFIX",
    "Part",
    "RoleAs",
    "StartConfig",
    "default_work_dir",
    "load_config",
    "master_addresses",
    "own_hosts",
    "own_master",
    "parse_masters",
    "part_of",
]

ENVIRONMENT_PREFIX = "MESOS_ACTOR_"
CONFIG_VARIABLE = "MESOS_ACTOR_CONFIG"
MAX_FILE_BYTES = 1 << 20
"""Larger configuration and resource files are refused."""
_NOT_SETTINGS = environment.RESERVED | {
    *(CONFIG_VARIABLE, "MESOS_ACTOR_INDEX", "MESOS_ACTOR_CHAOS_OUTSIDE"),
    *("MESOS_ACTOR_VENVS", "MESOS_ACTOR_PYTHON", "MESOS_ACTOR_IN_VM", "MESOS_ACTOR_VM_KVM"),
}
"""Names with our prefix that are no settings of `start`: what an agent tells its tasks, and what our scripts use."""


class StartConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that `start` can be told, checked."""

    masters: tuple[str, ...] = ()
    """`host:port` each; empty: a cluster of this host alone."""
    role_as: RoleAs = "auto"
    """`--as`: what this process is to be; `auto`: see `part_of`."""
    port: int | None = None
    """Where to listen; 0: any free port; None: see `part_of`."""
    bind: str = ""
    """The local address to listen on; empty: loopback when every master is on loopback, else all."""
    advertise: str = ""
    """The host under which others reach this process; empty: found out from the route to the masters."""
    hostname: str
    """The name under which people know this host."""
    work_dir: Path
    key_dir: Path | None = None
    """None: this user's own keys."""
    insecure: bool = False
    initialize: bool = False
    """This is the first start of a new cluster's master: it makes its registry."""
    replace: bool = False
    """This master's disk is lost: it joins again under its name with an empty one."""
    resources: Resources = Resources()
    """What is declared; the rest is detected."""
    without: frozenset[str] = frozenset()
    """Resources declared as zero, which must not be detected either."""
    attributes: Attributes = Attributes()
    isolation: Literal["cgroups", "process"] | None = None
    """What keeps tasks apart; None: cgroups, but for a cluster of this host alone where the host cannot do them."""
    cgroup_root: str = ""
    """The cgroup that was delegated to this agent; empty: the one it is started in."""
    containerizers: tuple[str, ...] = ()
    """More kinds of containers beside the agent's own, by the names of installed entry points."""
    volume_roots: tuple[str, ...] = ()
    confine_all: bool = False
    container_subnet: str = DEFAULT_SUBNET
    """Where containers of network `bridge` have their addresses."""
    log_json: bool = False
    log_level: Level = "info"
    master: MasterSettings = MasterSettings()
    agent: dict[str, int] = {}
    """Fields of AgentSettings that are not left at their defaults."""
    sources: dict[str, str] = {}
    """Setting -> where it came from, for each that was given: `option --port`, `MESOS_ACTOR_PORT`, `/etc/x.toml`."""

    def from_environment(self) -> dict[str, str]:
        """Setting -> variable, for each that came from the environment; `start` names them."""
        return {name: where for name, where in self.sources.items() if where.startswith(ENVIRONMENT_PREFIX)}

    def agent_settings(
        self,
        resources: Resources,
        masters: tuple[Address, ...] | None = None,
        version: str = "",
        isolation: str = "",
        warning: str = "",
    ) -> AgentSettings:
        """The agent's settings with all the resources it offers; `masters`: addresses instead of the configured;
        `isolation` and `warning`: what was chosen on this host, and what its operator should know of it."""
        return AgentSettings(
            hostname=self.hostname,
            masters=master_addresses(self.masters) if masters is None else masters,
            resources=resources,
            attributes=self.attributes,
            version=version,
            isolation=isolation,
            isolation_warning=warning,
            **self.agent,
        )


def load_config(
    options: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> StartConfig:
    """The settings of `start`.

    `options`: by the name of the setting or of its option (`role_as`, `as`, `work_dir`, `work-dir`,
    `master.offer_timeout`); those that are None were not given. `environ`: the process's, when None. `file`: instead
    of what `options["config"]` or `MESOS_ACTOR_CONFIG` names. Raises ConfigError.
    """
    environ = os.environ if environ is None else environ
    given = {name.replace("-", "_"): value for name, value in (options or {}).items() if value is not None}
    path = given.pop("config", None) or environ.get(CONFIG_VARIABLE) or None
    if file is None and path is not None:
        file = _path("config", str(path))
    found = {} if file is None else _from_file(file)
    found |= _from_environment(environ)
    found |= _from_options(given)
    return _built(found, environ)


def default_work_dir(environ: Mapping[str, str], *, is_root: bool) -> Path:
    """Where state is kept when nobody says: /var/lib for root, else the user's state directory (XDG)."""
    if is_root:
        return Path("/var/lib/mesos-actor")
    state = environ.get("XDG_STATE_HOME", "")
    # The XDG specification: a relative path is to be ignored.
    base = Path(state) if state.startswith("/") else Path("~/.local/state").expanduser()
    return base / "mesos-actor"


# -- each setting


class _Given(NamedTuple):
    value: Any
    source: str


def _path(where: str, value: object) -> Path:
    written = str(value) if isinstance(value, Path) else config_values.text(where, value)
    if not written or "\0" in written:
        raise refused(where, value, "is not a path", "name a directory")
    try:
        return Path(written).expanduser().absolute()
    except RuntimeError as problem:
        raise refused(where, value, f"names no home directory ({problem})", "write the path in full") from problem


def _resources(where: str, value: object) -> tuple[Resources, frozenset[str]]:
    written = _text_or_file(where, value)
    try:
        resources = Resources.parse(written)
        return resources, resource_text.declared_names(written) - resources.names()
    except InvalidInput as problem:
        raise ConfigError(f"{where}: {problem}") from None


def _attributes(where: str, value: object) -> Attributes:
    try:
        return Attributes.parse(_text_or_file(where, value))
    except InvalidInput as problem:
        raise ConfigError(f"{where}: {problem}") from None


def _text_or_file(where: str, value: object) -> str:
    written = config_values.text(where, value)
    if not written.startswith("file://"):
        return written
    path = unquote(written.removeprefix("file://"))
    if not path.startswith("/"):
        raise refused(where, value, "is not an absolute path", "write file:///path/to/file")
    return _content(where, Path(path)).strip()


_READERS: dict[str, Callable[[str, object], Any]] = {
    "masters": config_values.masters,
    "as": config_values.one_of(*get_args(RoleAs)),
    "port": config_values.port,
    "bind": config_values.host,
    "advertise": config_values.host,
    "hostname": config_values.host,
    "work_dir": _path,
    "key_dir": _path,
    "insecure": config_values.switch,
    "initialize": config_values.switch,
    "replace": config_values.switch,
    "resources": _resources,
    "attributes": _attributes,
    "isolation": config_values.one_of("cgroups", "process"),
    "cgroup_root": config_values.cgroup_root,
    "containerizers": config_values.names,
    "volume_roots": config_values.directories,
    "confine_all": config_values.switch,
    "container_subnet": config_values.subnet,
    "log_json": config_values.switch,
    "log_level": config_values.one_of(*get_args(Level)),
}
"""Name of a setting, as in the file -> what reads it."""

_AGENTS_OWN = ("isolation", "isolation_warning")
"""Fields of AgentSettings that are found out, not given."""

_TABLES = {
    "master": tuple(field.name for field in msgspec.structs.fields(MasterSettings)),
    "agent": tuple(
        field.name
        for field in msgspec.structs.fields(AgentSettings)
        if field.name not in (*_AGENTS_OWN, "hostname", "masters", "resources", "attributes", "version")
    ),
}
"""Table of the file -> its settings; all of them are whole numbers (a test sees to it)."""


def _names_of(table: str) -> dict[str, tuple[str, bool]]:
    """What may be written in `table` -> (field, whether its unit was written)."""
    names = {field: (field, True) for field in _TABLES[table]}
    names |= {f.removesuffix("_ms"): (f, False) for f in _TABLES[table] if f.endswith("_ms")}
    return names


def _put_nested(layer: dict[str, _Given], table: str, name: str, value: object, where: str, source: str) -> None:
    field, bare = _names_of(table)[name]
    path = f"{table}.{field}"
    if path in layer:
        raise refused(where, value, f"says {field} a second time", "write it once, with or without its unit")
    layer[path] = _Given(config_values.measure(where, field, value, bare=bare), source)


# -- each place


def _from_file(path: Path) -> dict[str, _Given]:
    try:
        content = tomllib.loads(_content("config", path))
    except (tomllib.TOMLDecodeError, RecursionError) as problem:
        raise ConfigError(f"config: {path} is not TOML: {problem}; correct it there") from problem
    layer: dict[str, _Given] = {}
    for name, value in content.items():
        if name in _TABLES:
            _read_table(path, name, value, layer)
        elif name in _READERS:
            layer[name] = _Given(_READERS[name](f"{name} in {path}", value), str(path))
        else:
            raise refused(f"config {path}", name, "is not a setting", nearest(name, [*_READERS, *_TABLES]))
    return layer


def _read_table(path: Path, table: str, value: object, layer: dict[str, _Given]) -> None:
    if not isinstance(value, dict):
        raise refused(f"{table} in {path}", value, "is not a table", f"write [{table}] and its settings below it")
    names = _names_of(table)
    for name, inner in value.items():
        if name not in names:
            raise refused(f"config {path}", name, f"is not a setting of [{table}]", nearest(name, names))
        _put_nested(layer, table, name, inner, f"{name} of [{table}] in {path}", str(path))


def _content(where: str, path: Path) -> str:
    try:
        with path.open("rb") as opened:
            content = opened.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else str(problem)
        raise ConfigError(f"{where}: cannot read {path}: {reason}; name a file this user can read") from problem
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"{where}: {path} is larger than {MAX_FILE_BYTES} bytes; name a smaller file")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise ConfigError(f"{where}: {path} is not UTF-8 text ({problem}); save it as UTF-8") from problem


def known_variables(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Variable -> (table, setting), for each of our settings in this environment. Raises ConfigError, with the nearest
    name, when one with our prefix is none."""
    known: dict[str, tuple[str, str]] = {_variable(name): ("", name) for name in _READERS}
    for table in _TABLES:
        known |= {_variable(f"{table}_{name}"): (table, name) for name in _names_of(table)}
    given = sorted(name for name in environ if name.startswith(ENVIRONMENT_PREFIX) and name not in _NOT_SETTINGS)
    for variable in given:
        if variable not in known:
            raise refused("environment", variable, "is not a setting", nearest(variable, known))
    return {variable: known[variable] for variable in given}


def _from_environment(environ: Mapping[str, str]) -> dict[str, _Given]:
    layer: dict[str, _Given] = {}
    for variable, (table, name) in known_variables(environ).items():
        value = environ[variable]
        if not value.strip():
            continue  # an empty variable is how a shell says "not set"
        if table:
            _put_nested(layer, table, name, value, variable, variable)
        else:
            layer[name] = _Given(_READERS[name](variable, value), variable)
    return layer


def _variable(name: str) -> str:
    return ENVIRONMENT_PREFIX + name.upper()


def _from_options(given: Mapping[str, object]) -> dict[str, _Given]:
    layer: dict[str, _Given] = {}
    for written, value in given.items():
        name = "as" if written in ("role_as", "as_") else written
        option = "--" + name.replace("_", "-")
        table, _, inner = name.rpartition(".")
        if table in _TABLES and inner in _names_of(table):
            _put_nested(layer, table, inner, value, option, f"option {option}")
        elif name in _READERS:
            layer[name] = _Given(_READERS[name](option, value), f"option {option}")
        else:
            raise refused("options", option, "is not an option", nearest(name, _READERS))
    return layer


# -- all together


def _built(found: dict[str, _Given], environ: Mapping[str, str]) -> StartConfig:
    fields = {name: given.value for name, given in found.items() if "." not in name}
    tables: dict[str, dict[str, int]] = {
        table: {field: found[f"{table}.{field}"].value for field in names if f"{table}.{field}" in found}
        for table, names in _TABLES.items()
    }
    fields["role_as"] = fields.pop("as", "auto")
    fields["resources"], fields["without"] = fields.get("resources", (Resources(), frozenset()))
    fields.setdefault("hostname", socket.gethostname() or "localhost")
    if fields.get("initialize") and fields.get("replace"):
        raise ConfigError(
            f"initialize ({found['initialize'].source}) and replace ({found['replace'].source}): one begins a new "
            "cluster, the other joins an old one; give one of them, and only once"
        )
    if "work_dir" not in fields:
        fields["work_dir"] = default_work_dir(environ, is_root=os.geteuid() == 0)
    config = StartConfig(
        **fields,
        master=MasterSettings(**tables["master"]),
        agent=tables["agent"],
        sources={name: given.source for name, given in found.items()},
    )
    _check_pairs("master", config.master, found)
    _check_pairs("agent", config.agent_settings(Resources()), found)
    return config


def _check_pairs(table: str, settings: MasterSettings | AgentSettings, found: Mapping[str, _Given]) -> None:
    """A time that doubles up to a highest one must not begin above it."""
    values = msgspec.structs.asdict(settings)
    for name, value in values.items():
        highest = name.removesuffix("_ms") + "_max_ms"
        if name.endswith("_ms") and highest in values and value > values[highest]:
            given = found.get(f"{table}.{name}") or found[f"{table}.{highest}"]
            raise ConfigError(
                f"{name} of [{table}] ({given.source}): {value} is above {highest}, {values[highest]}; "
                "lower the one or raise the other"
            )
