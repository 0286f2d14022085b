"""The home of one child: an environment and a scratch directory that keep the host's setup out.

Blocking, and without trio: call it in a worker thread.

What of the host reaches a child (``inherit_user_config=False``):

* **Providers**: the provider keys of the global config files, and of what ``OPENCODE_CONFIG``,
  ``OPENCODE_CONFIG_DIR`` and ``OPENCODE_CONFIG_CONTENT`` say, copied (see `host_config`), and the
  credentials, linked, so that a refreshed OAuth token lands in the host's own file.
* **The shell's settings**: opencode hands its ``XDG_*`` variables on to the commands of the agent,
  so every entry of the host's directories but opencode's own is linked into the private ones; git,
  gh and uv find their files.  A *new* entry that such a command makes ends with the child.
* **The cache**, which children share with the host; one in the scratch where it cannot be written.
* **An administrator's policy**: the managed config in ``/etc/opencode``, and the remote config of
  an organisation whose credentials are linked (``wellknown`` entries of ``auth.json``), still count.
* **The project**: ``opencode.json``, ``.opencode``, ``AGENTS.md``, ``CLAUDE.md`` and skills, found
  from the workspace upward; see `untrusted_workspace` for what that may pick up, and for keeping it
  out.

Facts about opencode are those of 1.18.33, read from the binary and tested against it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from opencode_trio._checks import PATHS_FAIL_WITH
from opencode_trio._json import Json
from opencode_trio._process.environment import CONFIG_CONTENT, RUN_MARKER, child_environment
from opencode_trio._process.host_config import (
    CONFIG_FILES,
    GLOBAL_CONFIG_FILES,
    parse_config,
    provider_config,
    render_config,
    variables_of,
)
from opencode_trio._process.scratch import link, make_scratch, mirror, remove_scratch, unusable
from opencode_trio._turn.redaction import NOTHING_KNOWN, Redactor
from opencode_trio.config import deep_merge
from opencode_trio.errors import OpenCodeConfigError

_log = logging.getLogger("opencode_trio")

_CREDENTIALS = ("auth.json", "mcp-auth.json")

_OPENCODE = frozenset({"opencode"})
# What opencode reads below its home: agents, commands, plugins; CLAUDE.md and skills.
_SETUP_IN_HOME = frozenset({".opencode", ".claude", ".agents"})

# opencode would install its plugin library by npm into every config directory that it may
# write, for plugins that an isolated child has none of.  It takes this for "already done".
_INSTALLED = {
    "lockfileVersion": 3,
    "packages": {"": {"dependencies": {"@opencode-ai/plugin": "*"}}},
}


@attrs.frozen
class ChildHome:
    """What one child needs of the file system before it starts."""

    scratch: Path
    """A directory of mode 0700 for this child alone; its creator removes it."""
    env: dict[str, str] = attrs.field(repr=False)
    """The child's whole environment."""
    elsewhere: Path | None = None
    """An empty directory to start it in, if not in its workspace."""
    redactor: Redactor = NOTHING_KNOWN
    """Knows the secrets that it is given."""


def prepare_child_home(
    *,
    base_env: Mapping[str, str],
    workspace: Path,
    inherit_user_config: bool,
    isolate_db: bool,
    data_home: Path | None,
    settings: Mapping[str, Any] | None = None,
    starts_elsewhere: bool = False,
) -> ChildHome:
    """Make the scratch directory of a child, and the environment that points into it.

    Args:
        base_env: The host's environment.
        workspace: Where the child works; relative paths in the host's variables start there.
        inherit_user_config: Leave the host's config, state and ``OPENCODE_*`` as they are.
        isolate_db: Give the child a data directory (database, sessions, logs) in the scratch.
        data_home: Use this data directory instead; made if it is missing, and never removed.
        settings: Write these as a config file that opencode reads after the project's.
        starts_elsewhere: Make a directory for it to start in.

    Raises:
        OpenCodeConfigError: a directory of the host, or ``data_home``, cannot be used.
        OSError: nothing can be written in the scratch directory; what had been made is gone again.
    """
    host = _Host.of(base_env)
    scratch = make_scratch()
    try:
        data = _private_data(host, scratch, isolate_db=isolate_db, data_home=data_home)
        # What opencode is made with unpacks libraries at each start, of 5 to 8 MB, and leaves them.
        moved = {"BUN_TMPDIR": str(_make_private(scratch / "unpacked"))}
        moved |= _usable_home(host, scratch)
        if data is None:
            _check_place(host, host.data, "XDG_DATA_HOME", must_be_writable=True)
        else:
            moved["XDG_DATA_HOME"] = str(data)
        asked_for: frozenset[str] = frozenset()
        if inherit_user_config:
            _check_place(host, host.config, "XDG_CONFIG_HOME")
            _check_place(host, host.state, "XDG_STATE_HOME")
        else:
            moved |= _private_setup(host, scratch)
            in_files, asked_for = _copy_providers(host, scratch, workspace)
            moved |= in_files
            if providers := _providers_over_project(host, workspace):
                asked_for |= variables_of(providers)
                settings = deep_merge(providers, settings or {})
        env = child_environment(
            base_env,
            inherit_user_config=inherit_user_config,
            own_data=data is not None,
            asked_for=asked_for,
        )
        if settings is not None:
            moved["OPENCODE_CONFIG_DIR"] = str(_write_settings(scratch, settings))
        elsewhere = _make_elsewhere(scratch) if starts_elsewhere else None
    except BaseException:
        remove_scratch(scratch)
        raise
    marker = {RUN_MARKER: f"{os.getpid()}.{os.urandom(16).hex()}"}
    return ChildHome(scratch, env | moved | marker, elsewhere)


def private_places(base_env: Mapping[str, str], scratch: Path) -> dict[str, str]:
    """Make a home that has nothing of the host's opencode, for asking it something.

    Returns:
        The variables that lead there.
    """
    host = _Host.of(base_env)
    data = _private_data(host, scratch, isolate_db=True, data_home=None)
    places = _usable_home(host, scratch) | _private_setup(host, scratch)
    return places | {"XDG_DATA_HOME": str(data), "BUN_TMPDIR": str(scratch)}


def host_environment() -> dict[str, str]:
    """Return the host's environment, without what concerns a frozen host alone.

    PyInstaller has an application load its own libraries first.  Other programs cannot work with
    those: not the agent's git, nor the Python of a warden.
    """
    env = dict(os.environ)
    if hasattr(sys, "_MEIPASS"):
        env.pop("LD_LIBRARY_PATH", None)
        if (original := env.pop("LD_LIBRARY_PATH_ORIG", None)) is not None:
            env["LD_LIBRARY_PATH"] = original
    return env


NO_HOME = "/nonexistent"
"""The home of who has none, as Debian writes it for its system users."""


def home_of(environ: Mapping[str, str]) -> str:
    """Find the home directory as opencode does: an empty ``HOME`` counts as none."""
    if home := environ.get("HOME"):
        return home
    if sys.platform == "win32":
        return os.path.expanduser("~")  # noqa: PTH111 - never raises
    import pwd  # noqa: PLC0415 - there is none on Windows

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:  # a container may run as a user that it does not know
        return NO_HOME


@attrs.frozen
class _Host:
    """Where opencode would look if it were started with the host's environment."""

    environ: Mapping[str, str]
    home: str
    """What ``~`` means in most places: ``os.homedir()``."""
    setup_home: Path
    """Where ``.opencode`` lies: the same, unless the host runs in an isolated child itself."""
    cache: Path
    config: Path
    data: Path
    state: Path

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> _Host:
        home = home_of(environ)

        def directory(variable: str, *default: str) -> Path:
            # Absolute, because links are made to it, and files are read relative to it.
            return Path(environ.get(variable) or Path(home, *default)).absolute()

        return cls(
            environ=environ,
            home=home,
            setup_home=directory("OPENCODE_TEST_HOME"),
            cache=directory("XDG_CACHE_HOME", ".cache"),
            config=directory("XDG_CONFIG_HOME", ".config"),
            data=directory("XDG_DATA_HOME", ".local", "share"),
            state=directory("XDG_STATE_HOME", ".local", "state"),
        )


def _usable_home(host: _Host, scratch: Path) -> dict[str, str]:
    """Return variables that lead to a home and a cache, the host's where these can be used.

    opencode does not start without a home, or if it cannot make its directory of programs.
    """
    found = {"HOME": host.home}
    if host.home == NO_HOME:
        found["HOME"] = str(_make_private(scratch / "HOME"))
    own = host.cache / "opencode"
    if _problem_with(own / "bin") is not None or not os.access(own, os.W_OK):
        mirror(host.cache, scratch / "cache", leave_out=_OPENCODE)
        mirror(own, scratch / "cache" / "opencode", leave_out=())
        found["XDG_CACHE_HOME"] = str(scratch / "cache")
    return found


def _check_place(
    host: _Host, place: Path, variable: str, *, must_be_writable: bool = False
) -> None:
    """Check a directory of the host's where opencode is to keep its files."""
    problem = _problem_with(place / "opencode")
    if problem is None and must_be_writable and not os.access(place / "opencode", os.W_OK):
        problem = "it cannot be written to"
    if problem is not None:
        cause = variable if host.environ.get(variable) else "HOME"
        raise OpenCodeConfigError(
            f"{cause}: opencode cannot keep its files in {place / 'opencode'}: {problem}"
        )


def _problem_with(folder: Path) -> str | None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        return exc.strerror or str(exc)
    return None


def _private_data(
    host: _Host, scratch: Path, *, isolate_db: bool, data_home: Path | None
) -> Path | None:
    if data_home is None and not isolate_db:
        return None
    if data_home is None:
        return _fill_data(host, scratch / "data")
    try:
        return _fill_data(host, data_home.absolute())
    except PATHS_FAIL_WITH as exc:
        raise unusable("data_home", exc) from exc


def _fill_data(host: _Host, data: Path) -> Path:
    mirror(host.data, data, leave_out=_OPENCODE)
    own = _make_private(data / "opencode")
    for name in _CREDENTIALS:
        credentials = host.data / "opencode" / name
        if credentials.is_file():
            link(own / name, credentials)
    return data


def _private_setup(host: _Host, scratch: Path) -> dict[str, str]:
    """Make config, state and home directories; return the variables that lead there."""
    config, state, home = (scratch / name for name in ("config", "state", "home"))
    mirror(host.config, config, leave_out=_OPENCODE)
    # Its model.json says which model was used last, and that would become the default.
    mirror(host.state, state, leave_out=_OPENCODE)
    _share_locks(host.state / "opencode", _make_private(state / "opencode"))
    # The links keep `~/` in a project's own config working: opencode takes this home for it.
    mirror(host.setup_home, home, leave_out=_SETUP_IN_HOME)
    return {
        "XDG_CONFIG_HOME": str(config),
        "XDG_STATE_HOME": str(state),
        "OPENCODE_TEST_HOME": str(home),
    }


def _share_locks(host_state: Path, state: Path) -> None:
    """Link the directory of locks: they guard the cache, which children share with the host.

    Without them two children would install one npm package into the same place at once.
    """
    locks = host_state / "locks"
    try:
        locks.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:  # a home that cannot be written to: then its cache is not written to either
        return
    link(state / "locks", locks)


def _make_elsewhere(scratch: Path) -> Path:
    """Make a place with nothing in it, that opencode takes for a project of its own.

    From its working directory opencode's own code loads a module (``node_modules/esprima``, which its
    YAML parser asks for), in every release that was looked at.  A repository, if an empty one,
    because opencode would look for a project's files in the directories above.
    """
    repository = scratch / "elsewhere" / ".git"
    for name in ("objects", "refs"):
        (repository / name).mkdir(parents=True)
    (repository / "HEAD").write_text("ref: refs/heads/main\n", encoding="utf-8")
    return repository.parent


def _make_private(folder: Path) -> Path:
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _copy_providers(
    host: _Host, scratch: Path, workspace: Path
) -> tuple[dict[str, str], frozenset[str]]:
    """Write what the host's config files say of providers, of those below the project's files.

    Returns:
        Variables that lead there, and the names of those that the providers ask for.
    """
    asked_for: set[str] = set()
    copies = [
        (source / name, _make_config_directory(copy) / name)
        for source, copy, names in (
            (host.config / "opencode", scratch / "config" / "opencode", GLOBAL_CONFIG_FILES),
            (host.setup_home / ".opencode", scratch / "home" / ".opencode", CONFIG_FILES),
        )
        for name in names
    ]
    moved: dict[str, str] = {}
    if named := host.environ.get("OPENCODE_CONFIG"):
        copy = scratch / "OPENCODE_CONFIG.json"
        moved["OPENCODE_CONFIG"] = str(copy)
        copies.append((workspace / named, copy))
    for source, copy in copies:
        if (providers := _providers_in(host, source)) is not None:
            copy.write_text(render_config(providers), encoding="utf-8")
            asked_for |= variables_of(providers)
    return moved, frozenset(asked_for)


def _providers_over_project(host: _Host, workspace: Path) -> Json:
    """Read what the host's variables say of providers that is stronger than the project's files."""
    providers: Json = {}
    if named := host.environ.get("OPENCODE_CONFIG_DIR"):
        for name in CONFIG_FILES:
            providers = deep_merge(providers, _providers_in(host, workspace / named / name) or {})
    if text := host.environ.get(CONFIG_CONTENT):
        said = _providers_of(host, lambda: text, CONFIG_CONTENT, workspace)
        providers = deep_merge(providers, said or {})
    return providers


def _make_config_directory(folder: Path) -> Path:
    _make_private(folder)
    _make_private(folder / "node_modules")
    (folder / "package-lock.json").write_text(json.dumps(_INSTALLED), encoding="utf-8")
    return folder


def _write_settings(scratch: Path, settings: Mapping[str, Any]) -> Path:
    """Write settings where opencode looks last, of all that it reads before an administrator's.

    In a variable they would be in the environment of each MCP server and each command of the agent,
    keys and all, and could not be longer than 128 KiB.
    """
    folder = _make_config_directory(scratch / "RunConfig")
    file = folder / "opencode.json"
    file.touch(mode=0o600)
    file.write_text(render_config(settings), encoding="utf-8")
    return folder


def _providers_in(host: _Host, file: Path) -> Json | None:
    return _providers_of(host, lambda: file.read_text(encoding="utf-8"), str(file), file.parent)


def _providers_of(
    host: _Host, read: Callable[[], str], source: str, directory: Path
) -> Json | None:
    try:
        providers = provider_config(
            parse_config(read(), environ=host.environ),
            directory=str(directory),
            home=host.home,
            environ=host.environ,
        )
        render_config(providers)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        # Leaving it out is the safe side; opencode, too, refuses what it cannot parse.
        _log.warning("the host's opencode config %s is left out: %s", source, error)
        return None
    return providers
