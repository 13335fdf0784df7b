"""Compiled programs kept for the next start of the same code, which traces nothing.

JAX's compile cache is asked for a program that has been traced and lowered already.
That is Python, and most of what a start with a full cache takes. This store is asked
first, with what a program is made from: code, versions, devices, options, shapes.
Where the code is another it is asked again, with what the program was lowered to.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import sys
import sysconfig
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jax.experimental import serialize_executable

from cemrl_jax.runtime import files, outlines, provenance

FOLDER = "programs"
"""In the folder of the compile cache."""
PACKAGE = pathlib.Path(__file__).parent.parent
VARIABLES = ("CUDA_", "JAX_", "LIBTPU_", "MJX_", "MUJOCO_", "NVIDIA_", "TPU_", "XLA_")
"""How environment variables begin that may change what is compiled."""
UNABLE = (
    *(NotImplementedError, ValueError, jax.errors.JaxRuntimeError),  # the back end
    *(AttributeError, TypeError),  # what it calls, or what its results are made of
)
"""What is raised of a program that cannot be kept."""
_CACHE_HIT = "/jax/compilation_cache/cache_hits"
_DIGEST = hashlib.sha256().digest_size
_IMPORTED = time.time()
_thread = threading.local()


def _count_hits(event: str, **_: Any) -> None:
    if event == _CACHE_HIT:
        _thread.hits = _hits() + 1


def _hits() -> int:
    """Returns how many programs this thread has had from JAX's compile cache."""
    return getattr(_thread, "hits", 0)


jax.monitoring.register_event_listener(_count_hits)


@dataclasses.dataclass(frozen=True)
class ProgramStore:
    """Keeps compiled programs, and which of them the newest code makes.

    What is read runs, as what JAX reads from its compile cache: it is machine code. So
    `open_store` uses no folder that others can write.

    Attributes:
      folder: where the programs are.
      surroundings: digest of versions, devices and settings.
      sources: digest of the code.
    """

    folder: pathlib.Path
    surroundings: bytes
    sources: bytes

    def remove_old(self, days: float = 30.0) -> None:
        """Removes what nobody has read or written for so long."""
        for path in self.folder.glob("*"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < time.time() - 86_400 * days:
                    path.unlink()

    def read(self, name: str) -> bytes:
        """Returns a file's content; nothing if it is not there, or not whole."""
        with contextlib.suppress(OSError):
            path = self.folder / name
            content = path.read_bytes()
            os.utime(path)
            if content[:_DIGEST] == hashlib.sha256(content[_DIGEST:]).digest():
                return content[_DIGEST:]
        return b""

    def write(self, name: str, content: bytes) -> bool:
        """Writes a file; returns whether that could be."""
        with contextlib.suppress(OSError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            head = hashlib.sha256(content).digest()
            files.write(self.folder / name, head + content)
            return True
        return False


@dataclasses.dataclass(frozen=True)
class StoredProgram:
    """A program's place in a store, whether it is there or not.

    Attributes:
      store: the store.
      description: all that tells the program from others of the same code.
      arguments: what it is called with, or shapes.
      known: name -> tree of which its results have parts, see `outlines`.
    """

    store: ProgramStore
    description: str
    arguments: tuple[Any, ...]
    known: Mapping[str, Any]

    def recall(self) -> Any | None:
        """Returns the compiled program, or None if there is none of this code."""
        note = self.store.read(self._note)
        if not note.startswith(self._code):
            return None
        return self._load(note.removeprefix(self._code).decode())

    def compile(self, lowered: Any, options: dict[str, Any] | None) -> Any:
        """Returns the compiled program, which is recalled from now on.

        It is loaded if other code was lowered to the same. One that JAX had in its
        compile cache is not kept: what a CPU has loaded it cannot save whole.

        Args:
          lowered: what is to be compiled.
          options: of the compiler.
        """
        name = self._name(lowered, options)
        if name is None:
            return lowered.compile(compiler_options=options)
        compiled = self._load(name)
        if compiled is None:
            before = _hits()
            compiled = lowered.compile(compiler_options=options)
            if _hits() > before or not self._save(name, compiled):
                return compiled
        self.store.write(self._note, self._code + name.encode())
        return compiled

    def _name(self, lowered: Any, options: dict[str, Any] | None) -> str | None:
        """Returns a name for all that is lowered to the same; None if it has none.

        The text has only those arguments that the program needs, and does not say
        which they are: their places do.
        """
        main = next(
            operation
            for operation in lowered.compiler_ir("stablehlo").body.operations
            if operation.attributes["sym_name"].value == "main"
        )
        needed = [str(argument.location) for argument in main.arguments]
        try:
            results = outlines.outline(lowered.out_tree, self.known)
        except TypeError:
            return None
        if any("unknown" in place for place in needed):
            return None
        signature = [needed, results, shapes_of(self.arguments), options or {}]
        text = f"{json.dumps(signature, sort_keys=True)}\n{lowered.as_text()}"
        return hashlib.sha256(self.store.surroundings + text.encode()).hexdigest()

    def _load(self, name: str) -> Any | None:
        header, _, packed = self.store.read(name).partition(b"\n")
        if not packed:
            return None
        numbers, results = json.loads(header)
        devices = {device.id: device for device in jax.devices()}
        with contextlib.suppress(*UNABLE):
            return serialize_executable.deserialize_and_load(
                zlib.decompress(packed),
                jax.tree.structure((self.arguments, {})),
                outlines.structure_of(results, self.known),
                execution_devices=[devices[number] for number in numbers],
            )
        return None

    def _save(self, name: str, compiled: Any) -> bool:
        """Keeps the compiled program; returns whether that could be."""
        devices = compiled.runtime_executable().local_devices()
        try:
            content, arguments, results = serialize_executable.serialize(compiled)
            if arguments != jax.tree.structure((self.arguments, {})):
                return False
            outlined = outlines.outline(results, self.known)
        except UNABLE:
            return False
        header = json.dumps([[device.id for device in devices], outlined]).encode()
        return self.store.write(name, header + b"\n" + zlib.compress(content, level=1))

    @property
    def _code(self) -> bytes:
        return self.store.surroundings + self.store.sources

    @property
    def _note(self) -> str:
        text = f"{PACKAGE.resolve()}\n{self.description}"  # copies have other code
        return f"note-{hashlib.sha256(text.encode()).hexdigest()}"


def open_store(folder: str) -> ProgramStore | None:
    """Returns the store in the folder of the compile cache.

    None where there is none: the cache is off or a bucket's address, others can write
    into the store, a run has several processes, or code was changed after this process
    began to read it.
    """
    if folder == "off" or "://" in folder or jax.process_count() > 1:
        return None
    place = pathlib.Path(folder) / FOLDER
    if not _only_ours(place):
        return None
    sources, paths = hashlib.sha256(), sorted(_sources())
    for path in paths:
        if path.stat().st_mtime > _IMPORTED:
            return None
        sources.update(f"{path}\n".encode() + path.read_bytes())
    text = json.dumps(_surroundings(), default=repr)
    surroundings = hashlib.sha256(text.encode()).digest()
    store = ProgramStore(place, surroundings, sources.digest())
    store.remove_old()
    return store


def _only_ours(folder: pathlib.Path) -> bool:
    """Returns whether nobody else can write into a folder, if it is there."""
    if not folder.exists() or not hasattr(os, "getuid"):
        return True
    status = folder.stat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


def shapes_of(tree: Any) -> str:
    """Describes the arrays of a tree, or their shapes."""
    leaves, structure = jax.tree.flatten(tree)
    return f"{[(leaf.shape, str(leaf.dtype)) for leaf in leaves]} {structure}"


def _sources() -> Iterator[pathlib.Path]:
    """Yields the files that programs are made from and no package's version names.

    All of this package, and what else has been imported from outside of the folders
    of Python and its packages.
    """
    for folder, _, names in os.walk(PACKAGE, followlinks=True):
        if not folder.endswith("__pycache__"):
            yield from (pathlib.Path(folder, name) for name in names)
    places = sysconfig.get_paths()
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    installed = tuple(f"{places[kind]}{os.sep}" for kind in kinds)
    own = f"{PACKAGE}{os.sep}"
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and not file.startswith((own, *installed)) and os.path.isfile(file):
            yield pathlib.Path(file)


def _surroundings() -> list[Any]:
    """Returns versions, devices and settings that compiled programs depend on."""
    devices = jax.devices()
    settings = {
        name: value
        for name, value in jax.config.values.items()
        if "cache" not in name and "log" not in name
    }
    return [
        sys.version,
        sorted(
            entry.name
            for place in map(pathlib.Path, sys.path)
            if place.is_dir()
            for entry in place.glob("*-info")
        ),
        [(x.platform, x.device_kind, x.id) for x in devices],
        devices[0].client.platform_version,
        *(provenance.processor(), provenance.of_processor("flags")),
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        sorted(settings.items()),
        sorted((k, v) for k, v in os.environ.items() if k.startswith(VARIABLES)),
    ]
