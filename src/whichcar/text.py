"""Text that several stages print: counts with their noun, commands that can be pasted, addresses without secrets."""

from __future__ import annotations

import hashlib
import re
import shlex
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from os import PathLike, fspath
from pathlib import Path, PurePath

# In the address of a file, a slash ends the host and so the password; database drivers read all up to the `@`.
_PASSWORD = re.compile(r"(?<=://)([^/\s:@]*):[^/\s]*@")
_LONG_PASSWORD = re.compile(r"(?<![\w+.-])(?!https?:|s3:|hf:|file:)([a-zA-Z][\w+.-]*://[^/\s:@]*):[^\s'\"]*@")
_TOKEN = re.compile(r"(?<=https://)[^/\s:@]+@|(?<=http://)[^/\s:@]+@")
_SECRET = r"[\w.%-]*(?:password|passwd|secret|token|signature|credential|api[_-]?key|access[_-]?key)[\w.%-]*"
_QUERY = re.compile(rf"(?i)(?<=[?&;])({_SECRET}|key|sig|auth|[\w-]+-key)=[^&;\s#'\"]+")
_ASSIGNED = re.compile(r"(?i)(?<![\w?&;.-])((?:--)?[\w.-]*(?:password|passwd|secret|token|api[_-]?key))=[^&\s'\"]+")


def plural(count: int, noun: str, several: str | None = None) -> str:
    """Return a count with its noun: `1 image`, `3 images`, `2 classes`, `12,000 rows`.

    Args:
        count: how many there are.
        noun: the singular.
        several: the plural if it is irregular (not `s`, `es` after s, x, ch and sh, or `ies` for a consonant and y).
    """
    if count == 1:
        return f"1 {noun}"
    if several is None:
        if noun.endswith(("s", "x", "ch", "sh")) and not noun.endswith("och"):
            several = f"{noun}es"
        elif noun.endswith("y") and noun[-2:-1] not in "aeiou":
            several = f"{noun[:-1]}ies"
        else:
            several = f"{noun}s"
    return f"{count:,} {several}"


def listed(names: Sequence[str], most: int = 5) -> str:
    """Return the first names on one line, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(one_line, names[:most])) + more


def shell_command(words: Iterable[str | PathLike[str]]) -> str:
    """Return a command as one line that a shell splits into exactly these words; passwords are replaced.

    A word with line breaks, control characters or bytes that are not text is quoted as `$'...'`, which bash, zsh and
    ksh understand; other words are quoted by the rules of POSIX. A path (not a `str`) that begins with a dash gets a
    `./`.
    """
    return " ".join(_quoted(without_password(_word(word))) for word in words)


def command_line() -> str:
    """Return the command line of this process, passwords replaced; `python -m whichcar` becomes `whichcar`."""
    program = Path(sys.argv[0])
    return shell_command([program.parent.name if program.name == "__main__.py" else program.name, *sys.argv[1:]])


def _word(word: str | PathLike[str]) -> str:
    # A path that begins with a dash would be taken for an option.
    text = fspath(word)
    return f"./{text}" if text.startswith("-") and not isinstance(word, str) else text


def _quoted(word: str) -> str:
    if all(map(_is_shown, word)):
        return shlex.quote(word)
    return "$'" + "".join(c if _is_shown(c) and c not in "\\'" else _as_bytes(c) for c in word) + "'"


def _as_bytes(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))


def without_password(text: str) -> str:
    """Return `text` with `***` for every password, token and signature in it.

    Replaced are the password between user and host in an address, a token before the host of a web address, the values
    of query parameters such as `X-Amz-Signature`, `sig`, `token` or `key`, and values after `password=` or the like.
    """
    text = _PASSWORD.sub(r"\1:***@", _LONG_PASSWORD.sub(r"\1:***@", text))
    return _ASSIGNED.sub(r"\1=***", _QUERY.sub(r"\1=***", _TOKEN.sub("***@", text)))


def is_address(text: str) -> bool:
    """Return whether a text is an address, such as `https://host/a.jpg` or `s3://…`, and not a path."""
    return "://" in text


def as_text(path: str | PurePath) -> str:
    """Return a name, or a path with `/`, as text that can be written; bytes not in UTF-8 become `udcff` escapes."""
    text = path if isinstance(path, str) else path.as_posix()
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def nfc(name: str) -> str:
    """Return a name in Unicode NFC, for comparison: a name from a Mac may have its accents decomposed."""
    return unicodedata.normalize("NFC", name)


def shortened(text: str, most: int = 60) -> str:
    """Return a text, shortened in its middle to at most `most` characters, because a class name ends in its year."""
    half = most // 2
    return text if len(text) <= most else f"{text[:half]}…{text[1 - half :]}"


def one_line(text: object) -> str:
    """Return a text or path on one line: line breaks, control characters and bytes that are not text are escaped."""
    return "".join(c if _is_shown(c) else c.encode("unicode_escape").decode() for c in str(text))


def suggestion(name: str, known: Iterable[str], *, parts: bool = True) -> str:
    """Return "did you mean `...`?" if a known name is close or (with `parts`) contains the name, else an empty text."""
    from difflib import get_close_matches

    names = list(known)
    holding = [one for one in names if parts and len(name) >= 3 and name.lower() in one]
    close = get_close_matches(name.lower(), names, n=1) or holding
    return f"did you mean `{close[0]}`?" if close else ""


def reason_of(error: BaseException) -> str:
    """Return why something failed, on one line and in plain words instead of Python's notation."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnicodeDecodeError):
        return f"not text in UTF-8 from byte {error.start} on"
    if isinstance(error, KeyError):
        return f"{one_line(error.args[0]) if error.args else 'something'} is missing"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return one_line(error) or type(error).__name__


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, without a password in an address and without a full stop."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return without_password(lines[0]).strip().rstrip(".")


def _is_shown(character: str) -> bool:
    # `isprintable` accepts only the plain space, not the no-break space or the spaces of other scripts.
    return character.isprintable() or unicodedata.category(character) == "Zs"


def digest(text: str) -> str:
    """Return 8 hexadecimal digits that identify a text or a path."""
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()


def file_name(text: str, of: str | None = None) -> str:
    """Return a text as a file name that is safe everywhere: in a shell, an address, and on every file system.

    Letters and digits of any script, `.`, `_` and `-` are kept; all else becomes `_`. A name that was changed, or
    shortened to 80 bytes, ends in a digest of the text, so that two texts never share a name.

    Args:
        text: the text to convert.
        of: what the name identifies, such as a whole path; the name then always ends in a digest of it.
    """
    safe = re.sub(r"[^\w.-]", "_", text.encode("utf-8", "replace").decode("utf-8")).lstrip(".-")
    safe = safe.encode("utf-8")[:80].decode("utf-8", "ignore")
    if of is None and safe == text and safe:
        return safe
    return f"{safe}-{digest(text if of is None else of)}".lstrip("-")
