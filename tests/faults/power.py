"""A disk that keeps only what it was told to keep, as after a power cut.

It follows the letter of POSIX, which is harsher than any file system in use: a file has the content that it had at its last fsync,
a folder has the names that it had at its own.
"""

import os
import shutil
from pathlib import Path

from .watched import Change


class Disk:
    """What would be left of a folder after a power cut now. `notice` is called with each change before it is made."""

    def __init__(self, root: Path) -> None:
        """Everything that is in `root` now counts as kept."""
        self.root = root
        self.pins: list[int] = []  # open files: an inode that is kept must not be given to another file
        self.contents: dict[int, bytes] = {}
        self.links: dict[int, str] = {}
        self.names: dict[int, dict[str, int]] = {}
        self.syncing: Path | None = None
        for path in (root, *root.rglob("*")):
            self._keep(path)

    def notice(self, change: Change) -> None:
        """Take note of the change before this one, which has been made by now."""
        if self.syncing is not None:
            self._keep(self.syncing)
        self.syncing = change.path if change.operation == "fsync" else None

    def cut(self) -> None:
        """Leave only what is kept in the folder."""
        kept = os.stat(self.root).st_ino
        for child in self.root.iterdir():
            shutil.rmtree(child) if child.is_dir() and not child.is_symlink() else child.unlink()
        self._restore(kept, self.root)
        self.close()

    def close(self) -> None:
        """Release the pins."""
        for pin in self.pins:
            os.close(pin)
        self.pins.clear()

    def _keep(self, path: Path) -> None:
        if path.is_symlink():
            self.links[os.lstat(path).st_ino] = os.readlink(path)
            return
        if not path.exists():
            return
        inode = self._pin(path)
        if path.is_dir():
            self.names[inode] = {entry.name: entry.inode() for entry in os.scandir(path)}
            for child in path.iterdir():
                if child.is_symlink():
                    self.links[os.lstat(child).st_ino] = os.readlink(child)
                else:
                    self._pin(child)
        else:
            self.contents[inode] = path.read_bytes()

    def _pin(self, path: Path) -> int:
        self.pins.append(os.open(path, os.O_RDONLY))
        return os.fstat(self.pins[-1]).st_ino

    def _restore(self, folder: int, path: Path) -> None:
        for name, inode in self.names.get(folder, {}).items():
            child = path / name
            if inode in self.links:
                child.symlink_to(self.links[inode])
            elif inode in self.names or self._is_folder(inode):
                child.mkdir()
                self._restore(inode, child)
            else:
                child.write_bytes(self.contents.get(inode, b""))

    def _is_folder(self, inode: int) -> bool:
        return any(os.fstat(pin).st_ino == inode and os.path.isdir(f"/proc/self/fd/{pin}") for pin in self.pins)
