"""Known secrets, kept out of errors, logs and reprs: wherever one stands, it is replaced.

Known is what was given: by settings, by the environment, by credential files.  Of those, what is
called a secret (``apiKey``, ``Authorization``, ``GITHUB_TOKEN``), and passwords in URLs.  What is
replaced is the value itself, in the forms in which JSON and URLs write it; what somebody has made of
it (a part, a hash) is not found.  What a model or a tool says is content, and left alone.  Pure.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote

import attrs

from opencode_trio._json import Json, is_list, is_mapping, is_sequence

REDACTED = "[redacted]"

MIN_LENGTH = 8
"""Shorter values are words, too: to replace ``test`` everywhere would garble what is said."""

_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_SECRET_WORDS = frozenset(
    "key keys auth pat pass pwd cookie bearer refresh access verifier signature".split()  # noqa: SIM905
)
_SECRET_STEMS = re.compile(r"secret|token|passw|passphrase|credential|apikey|authorization|cookie")

_ENV = re.compile(r"\{env:([^}]+)\}")
_FILE = re.compile(r"\{file:([^}]+)\}")
_USER_OF_URL = re.compile(r"(?<=://)(?:(?P<user>[^\s/?#@:]*):)?(?P<secret>[^\s/?#@]+)@")
_MIN_TOKEN = 20
"""Of what stands where a URL has its user: a token is no shorter, ``git`` is none."""


def names_a_secret(name: str) -> bool:
    """Whether something of this name is kept from others: a variable, a header, a setting."""
    words = [word.lower() for word in _WORDS.findall(name)]
    is_secret = any(word in _SECRET_WORDS or _SECRET_STEMS.search(word) for word in words)
    return is_secret and name != "PWD"  # where a shell is; `MYSQL_PWD` is none of those


def secrets_in(value: Any, *, environ: Mapping[str, str], is_secret: bool = False) -> Iterator[str]:
    """Yield the secrets of a configuration, a file of credentials, an environment.

    Args:
        value: JSON.
        environ: what ``{env:NAME}`` means.
        is_secret: whether all of it is.
    """
    if isinstance(value, str):
        yield from _in_text(value, environ, is_secret=is_secret)
    elif is_mapping(value):
        for name, inner in value.items():
            secret = is_secret or names_a_secret(str(name))
            yield from secrets_in(inner, environ=environ, is_secret=secret)
    elif is_sequence(value):
        for inner in value:
            yield from secrets_in(inner, environ=environ, is_secret=is_secret)


def _in_text(text: str, environ: Mapping[str, str], *, is_secret: bool) -> Iterator[str]:
    for found in filter(_is_secret, _USER_OF_URL.finditer(text)):
        yield from {found["secret"], unquote(found["secret"])}
    if not is_secret:
        return
    for name in _ENV.findall(text):
        yield environ.get(name, "")
    if not (_ENV.search(text) or _FILE.search(text)):  # where it is, is no secret
        yield text
        yield from text.split()  # a header's "Bearer ..."


def files_in(value: Any) -> Iterator[str]:
    """Yield the paths that a configuration takes secrets from, by ``{file:...}``."""
    if isinstance(value, str):
        yield from _FILE.findall(value)
    elif is_mapping(value):
        for name, inner in value.items():
            if names_a_secret(str(name)) or not isinstance(inner, str):
                yield from files_in(inner)
    elif is_sequence(value):
        for inner in value:
            yield from files_in(inner)


def masked(value: Any) -> Any:
    """Return JSON with what is called a secret replaced, whatever it is."""
    if is_mapping(value):
        return {
            name: REDACTED
            if names_a_secret(str(name)) and _says_something(inner)
            else masked(inner)
            for name, inner in value.items()
        }
    if is_list(value):
        return [masked(inner) for inner in value]
    return without_passwords(value) if isinstance(value, str) else value


def _says_something(value: Any) -> bool:
    return isinstance(value, str | list | dict)


def without_passwords(text: str) -> str:
    """Replace the passwords and tokens of URLs."""
    return _USER_OF_URL.sub(_hidden, text)


def _hidden(found: re.Match[str]) -> str:
    user = "" if found["user"] is None else f"{found['user']}:"
    return f"{user}{REDACTED}@" if _is_secret(found) else found[0]


def _is_secret(found: re.Match[str]) -> bool:
    return found["user"] is not None or len(found["secret"]) >= _MIN_TOKEN


def _forms(secret: str) -> Iterator[str]:
    """Yield how a secret may be written: as it is, in JSON, in JSON within JSON, in a URL."""
    yield secret
    for ascii_only in (True, False):
        once = json.dumps(secret, ensure_ascii=ascii_only)[1:-1]
        yield once
        yield json.dumps(once, ensure_ascii=ascii_only)[1:-1]
    yield quote(secret, safe="", errors="surrogatepass")


def password_forms(username: str, password: str) -> list[str]:
    """Return how a password travels: as it is, and in a header."""
    return [password, base64.b64encode(f"{username}:{password}".encode()).decode()]


FAILURES = ("error", "status")
"""Keys below which records tell of failures: of a turn, a message, a retry."""


@attrs.frozen(repr=False)
class Redactor:
    """Replaces known secrets."""

    _forms: tuple[str, ...] = ()

    @classmethod
    def of(cls, secrets: Iterable[str]) -> Redactor:
        """Make one that knows these, those apart that are too short."""
        forms = {f for secret in secrets if len(secret) >= MIN_LENGTH for f in _forms(secret)}
        return cls(tuple(sorted(forms, key=len, reverse=True)))  # one may be part of another

    def knowing(self, *secrets: str) -> Redactor:
        """Return one that knows more."""
        return Redactor.of([*self._forms, *secrets])

    def __repr__(self) -> str:
        return f"<Redactor of {len(self._forms)}>"

    def text(self, text: str) -> str:
        """Return a text without them."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, REDACTED)
        return without_passwords(text) if "://" in text else text

    def record(self, record: Any) -> Any:
        """Return a record in which what tells of failures is without them."""
        return self._cleaned(record, is_told=False)

    def values(self, record: Json) -> Json:
        """Return a record without them, wherever they are."""
        cleaned: Json = self._cleaned(record, is_told=True)
        return cleaned

    def is_needed(self, text: str) -> bool:
        """Whether the text of a record may tell of a failure, and holds a secret."""
        return any(f'"{key}"' in text for key in FAILURES) and self.text(text) != text

    def _cleaned(self, value: Any, *, is_told: bool) -> Any:
        try:
            return self._walk(value, is_told=is_told)
        except RecursionError:  # nested by somebody who means no good
            return json.loads(self.text(json.dumps(value)))

    def _walk(self, value: Any, *, is_told: bool) -> Any:
        if isinstance(value, str):
            return self.text(value) if is_told else value
        if is_mapping(value):
            return {
                key: self._walk(inner, is_told=is_told or key in FAILURES)
                for key, inner in value.items()
            }
        return [self._walk(inner, is_told=is_told) for inner in value] if is_list(value) else value


NOTHING_KNOWN = Redactor()
