"""What a repository says a large file is: the git-annex key in its pointer, read with plain git.

A pointer is a symbolic link into `.git/annex/objects` (locked) or a small file whose first line
begins with `/annex/objects/` (unlocked); both end in a key such as `MD5E-s123--<md5>.zip`, which
carries size and checksum (https://git-annex.branchable.com/internals/key_format/ and
.../pointer_file/). git-annex itself is not needed.
"""

import hashlib
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sensorium_models.progress import tell
from sensorium_models.recordings.patience import DownloadError, Patience

# git-annex never takes a longer file for a pointer.
_LONGEST_POINTER = 32 * 1024
_KEY = re.compile(
    r"(?P<backend>[A-Z0-9]+?)(?P<extension>E?)(?P<fields>(-[A-Za-z]\d+)*)--(?P<name>.+)"
)
_ALGORITHMS = {
    name.upper(): name for name in ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")
}
_READ_BYTES = 1 << 20

# A server that gives one commit and no large files serves the first; any git server the second.
_WAYS_TO_FETCH = (
    ("--depth=1", "--filter=blob:limit=64k", "origin", "{revision}"),
    ("origin", "+refs/heads/*:refs/heads/*"),
)
_LOOK_UPS = 4
_GIT_SECONDS = 900


@dataclass(frozen=True)
class AnnexKey:
    """Size in bytes and checksum of a file, as git-annex writes them into one word."""

    text: str
    algorithm: str
    size: int
    checksum: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a key.

        Raises:
            ValueError: it is none, or one of a kind that carries no size or no checksum.
        """
        found = _KEY.fullmatch(text)
        algorithm = _ALGORITHMS.get(found["backend"]) if found else None
        if found is None or algorithm is None:
            raise ValueError(f"{text!r} is no git-annex key with a checksum")
        fields = dict(re.findall(r"-([A-Za-z])(\d+)", found["fields"]))
        if "s" not in fields or "S" in fields or "C" in fields:
            raise ValueError(f"{text!r} is a git-annex key without the size of the whole file")
        # Only an `E` backend keeps the file's extension behind the checksum. The key becomes part
        # of a file name, so nothing else may stand there.
        checksum, dot, extension = found["name"].partition(".")
        length = 2 * hashlib.new(algorithm, usedforsecurity=False).digest_size
        if not re.fullmatch(rf"[0-9a-f]{{{length}}}", checksum) or (
            dot and not (found["extension"] and re.fullmatch(r"[A-Za-z0-9.]{1,32}", extension))
        ):
            raise ValueError(f"{text!r} is a git-annex key whose checksum is malformed")
        return cls(text, algorithm, int(fields["s"]), checksum)

    def checksum_of(self, file: Path) -> str:
        """Checksum of a file by the key's algorithm, read in pieces."""
        total = hashlib.new(self.algorithm, usedforsecurity=False)
        with file.open("rb", buffering=0) as stream:
            while piece := stream.read(_READ_BYTES):
                total.update(piece)
        return total.hexdigest()

    def describes(self, file: Path) -> bool:
        """Whether a file has the key's size and checksum."""
        return file.stat().st_size == self.size and self.checksum_of(file) == self.checksum


@dataclass(frozen=True)
class Pointer:
    """A file of a repository: the commit that was looked at and the key found there."""

    commit: str
    key: AnnexKey


def look_up(repository: str, revision: str, file: str, *, patience: Patience) -> Pointer:
    """Read the pointer of `file` at a commit, or at the tip of a branch, of a remote repository.

    Nothing is checked out, and no content besides small files is fetched.

    Args:
        repository: address that git understands.
        revision: a commit (40 hexadecimal digits) or the name of a branch.

    Raises:
        DownloadError: the repository cannot be reached, has no such commit or file, or the file is
            no git-annex pointer.
    """
    problem = ""
    for attempt in range(_LOOK_UPS):
        if attempt:
            tell(f"{problem} Asking again.")
            patience.wait(attempt)
        for way in _WAYS_TO_FETCH:
            with tempfile.TemporaryDirectory(prefix="sensorium-annex-") as folder:
                git = _Git(Path(folder), patience.timeout_s)
                try:
                    git.fetch(repository, revision, way)
                except _GitFailed as error:
                    problem = f"{repository} cannot be read with git: {error}."
                    continue
                return _pointer(git, repository, revision, file)
    raise DownloadError(
        f"{problem} Check the network (and proxy) of this machine, the server and the name of the "
        "repository."
    )


class _GitFailed(Exception):
    """A git command failed; the message is what it said."""


class _Git:
    """git in an empty bare repository of its own."""

    def __init__(self, folder: Path, silence_s: float) -> None:
        self._folder = folder
        seconds = max(1, round(silence_s))  # 0 would mean for ever
        settings = ("gc.auto=0", "http.lowSpeedLimit=1", f"http.lowSpeedTime={seconds}")
        self._options = [word for setting in settings for word in ("-c", setting)]

    def fetch(self, repository: str, revision: str, way: tuple[str, ...]) -> None:
        self("init", "--bare", "--quiet", str(self._folder))
        self("remote", "add", "origin", repository)
        branch = f"refs/heads/{revision}"
        wanted = revision if _is_commit(revision) else f"+{branch}:{branch}"
        self("fetch", "--quiet", "--no-tags", *(part.format(revision=wanted) for part in way))
        # Otherwise git would fetch a large file that was left out as soon as its size is asked for.
        self("remote", "remove", "origin")

    def __call__(self, *arguments: str) -> bytes:
        try:
            done = subprocess.run(
                ["git", f"--git-dir={self._folder}", *self._options, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_GIT_SECONDS,
                # Never ask for a password; say everything in one language.
                env={
                    **os.environ,
                    "GIT_TERMINAL_PROMPT": "0",
                    "GIT_ASKPASS": "true",
                    "LC_ALL": "C",
                },
            )
        except FileNotFoundError as error:
            raise DownloadError("git is not installed; it is needed to look up files.") from error
        except subprocess.TimeoutExpired as error:
            raise _GitFailed(f"no answer within {_GIT_SECONDS} seconds") from error
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise _GitFailed(said[-1].rstrip(".") if said else f"exit code {done.returncode}")
        return done.stdout


def _pointer(git: _Git, repository: str, revision: str, file: str) -> Pointer:
    commit = _commit(git, repository, revision)
    place = f"{repository}: {file} at commit {commit}"
    entry = git("ls-tree", "-z", commit, "--", file).decode(errors="replace").strip("\0")
    mode, kind, blob = (entry.partition("\t")[0].split() + [""] * 3)[:3]
    if kind != "blob":
        raise DownloadError(f"{place} is not there; correct folder, file or commit of the source.")
    try:
        size = int(git("cat-file", "-s", blob))
        content = git("cat-file", "blob", blob) if size <= _LONGEST_POINTER else b""
    except _GitFailed:  # too large to have come along
        content = b""
    line = content.decode(errors="replace").partition("\n")[0]
    within = line.startswith("/annex/objects/") or (mode == "120000" and "annex/objects/" in line)
    if not within:
        raise DownloadError(
            f"{place} is no git-annex pointer, so neither its size nor its checksum is known. Name "
            "a file that is, or download it by hand and give it as a source of kind directory."
        )
    try:
        return Pointer(commit, AnnexKey.parse(line.rstrip("\r").rpartition("/")[2]))
    except ValueError as error:
        raise DownloadError(f"{place}: {error}; the file cannot be verified.") from error


def _commit(git: _Git, repository: str, revision: str) -> str:
    kind, name = (
        ("commit", revision) if _is_commit(revision) else ("branch", f"refs/heads/{revision}")
    )
    try:
        return git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").decode().strip()
    except _GitFailed as error:
        raise DownloadError(
            f"{repository} has no {kind} {revision}; correct the commit of the source."
        ) from error


def _is_commit(revision: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None
