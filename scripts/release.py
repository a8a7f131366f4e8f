"""The extension as it is released: built, run over the examples, and built again for what they had it do.

That is profile-guided optimisation, as CPython, rustc and many wheels are built. The profile is of the examples, many
times over, with the built-in tokenizer and with real ones, with the defaults, in windows and as TRL does it; no
dialogue that is measured is in it. `llvm-profdata` of rustc's LLVM is needed: `rustup component add llvm-tools`, or a
package such as `llvm-22`. By default a wheel is written to `target/wheels`; `--develop` puts the extension into this
environment instead, which is what `make bench` measures.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import real_tokenizers

ROOT = Path(__file__).resolve().parent.parent
PGO = ROOT / "target" / "pgo"
PROFILE = PGO / "dlgc.profdata"
TEMPLATE = ROOT / "rust" / "dlgc" / "assets" / "builtin" / "chat_template.jinja"
# Real tokenizers, of each kind that has a fast path of its own; the last one comes without a template.
TOKENIZERS = ("qwen3", "llama3_1", "gemma3", "deepseek_v3", "gptoss")
WITHOUT_TEMPLATE = ("gptoss",)
AS_TRL = (
    *("--target", "template", "--mask", "hf-compat", "--window", "truncate", "--packing", "trl-bfd"),
    *("--max-length", "2048"),
)
# With the tokenizer's own template, whose turns mostly have rows of their own.
IN_WINDOWS = ("--max-length", "256", "--packing", "bfd")
TIMES = 60


def rustc() -> tuple[str, str]:
    """The host that rustc builds for, and the major version of its LLVM."""
    said = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout  # noqa: S607
    facts = dict(line.split(": ", 1) for line in said.splitlines() if ": " in line)
    return facts["host"], facts["LLVM version"].split(".")[0]


def profdata(host: str, llvm: str) -> Path:
    """The tool that joins profiles, of the LLVM that rustc has."""
    sysroot = subprocess.run(["rustc", "--print", "sysroot"], check=True, capture_output=True, text=True)  # noqa: S607
    places = [
        Path(sysroot.stdout.strip()) / "lib" / "rustlib" / host / "bin" / "llvm-profdata",
        *(Path(found) for name in (f"llvm-profdata-{llvm}", "llvm-profdata") if (found := shutil.which(name))),
        Path(f"/usr/lib/llvm-{llvm}/bin/llvm-profdata"),
    ]
    for place in filter(Path.is_file, places):
        said = subprocess.run([place, "--version"], check=False, capture_output=True, text=True).stdout
        if (version := re.search(r"LLVM version (\d+)", said)) and version[1] == llvm:
            return place
    sys.exit(
        f"no `llvm-profdata` of LLVM {llvm}, which this rustc was built with: "
        f"`rustup component add llvm-tools`, or install llvm-{llvm}"
    )


def maturin(command: str, flags: str, *arguments: str) -> None:
    environment = os.environ | {
        "VIRTUAL_ENV": sys.prefix,
        "RUSTFLAGS": f"{os.environ.get('RUSTFLAGS', '')} {flags}".strip(),
    }
    subprocess.run(
        [Path(sys.executable).parent / "maturin", command, "--release", "--quiet", *arguments],
        check=True,
        cwd=ROOT,
        env=environment,
    )


def train(host: str) -> None:
    """Runs the instrumented extension over the examples; the profiles are in `target/pgo/raw`."""
    raw, folder = PGO / "raw", PGO / "run"
    for old in (raw, folder):
        shutil.rmtree(old, ignore_errors=True)
    wheels = PGO / "instrumented"
    shutil.rmtree(wheels, ignore_errors=True)
    # With a target of its own, what only builds is not instrumented.
    maturin("build", f"-Cprofile-generate={raw}", "--target", host, "--skip-auditwheel", "--out", str(wheels))
    shutil.rmtree(raw, ignore_errors=True)
    with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    data = folder / "data"
    data.mkdir()
    for number in range(TIMES):
        for path in (ROOT / "examples" / "dialogues").iterdir():
            shutil.copy(path, data / f"{number}-{path.name}")
    runs: list[tuple[str, ...]] = [(), ("--max-length", "512", "--summary", "extract"), AS_TRL]
    for name in TOKENIZERS:
        try:
            own = ("--tokenizer", str(real_tokenizers.folder(name)))
        except real_tokenizers.UnavailableError as error:
            print(f"{name}: not in the profile: {error}", file=sys.stderr)
            continue
        common = (*own, "--chat-template", str(TEMPLATE))
        runs += [common, (*common, *AS_TRL)]
        if name not in WITHOUT_TEMPLATE:
            runs.append((*own, *IN_WINDOWS))
    for number, arguments in enumerate(runs):
        command = [sys.executable, "-m", "dlgc", "compile", str(data), "-o", str(folder / f"shards-{number}")]
        done = subprocess.run(
            [*command, "--max-rejects", "1.0", "--threads", "1", "--json", *arguments],
            check=False,
            cwd=folder,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            sys.exit(f"{' '.join(arguments)}: {done.stderr}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--develop", action="store_true", help="into this environment instead of a wheel")
    arguments = parser.parse_args()
    host, llvm = rustc()
    tool = profdata(host, llvm)
    train(host)
    subprocess.run([tool, "merge", "-o", PROFILE, PGO / "raw"], check=True)
    os.environ["DLGC_PROFILED"] = "1"
    flags = f"-Cprofile-use={PROFILE}"
    if arguments.develop:
        maturin("develop", flags, "--target", host)
    else:
        maturin("build", flags, "--target", host)


if __name__ == "__main__":
    main()
