"""Which files belong to the project: those git tracks, and new ones that it doesn't ignore."""

import pathlib
import subprocess


def project_files(root):
    """Returns paths relative to `root`, sorted. `root` may belong to another user, as in a container."""
    out = subprocess.run(
        ["git", "-c", "safe.directory=*", "-C", str(root), "ls-files", "-z", "--cached", "--others",
         "--exclude-standard"],
        check=True, capture_output=True).stdout.decode()
    files = {pathlib.PurePosixPath(name) for name in out.split("\0") if name}
    return sorted(name for name in files if (root / name).is_file() and not (root / name).is_symlink())
