"""The wheel: it holds what it should and its commands run from it, not from this checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.making.commands import ROOT
from tests.making.slides import TinyDataset


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, out = tmp_path_factory.mktemp("source") / "p", tmp_path_factory.mktemp("wheel")
    of_any = shutil.ignore_patterns(".venv", ".git", "*_cache", "*pycache*")
    of_root = shutil.ignore_patterns("demo*store", "demo", "demo-report", "store")

    def ignore(folder: str, names: list[str]) -> set[str]:
        return of_any(folder, names) | (of_root(folder, names) if Path(folder) == ROOT else set())

    shutil.copytree(ROOT, source, ignore=ignore)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source],
        check=True,
        capture_output=True,
    )
    (built,) = out.glob("*.whl")
    return built


def test_it_holds_exactly_the_packages(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {n.split("/")[0] for n in names if ".dist-info" not in n} == {
        "embedstore",
        "probes",
        "e2e",
        "cli.py",
    }
    assert wheel.name.startswith("mitosis_embedstore-")
    sources = {
        str(p.relative_to(ROOT))
        for d in ("embedstore", "probes", "e2e")
        for p in (ROOT / d).rglob("*.py")
    }
    for folder in ("probes/reports/template", "embedstore/reading/template"):
        sources |= {str(p.relative_to(ROOT)) for p in (ROOT / folder).iterdir()}
    sources |= {f"{d}/py.typed" for d in ("embedstore", "probes", "e2e")}
    assert sources <= set(names)


def test_its_commands_run_from_it(wheel: Path, tmp_path: Path, tiny: TinyDataset) -> None:
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    site = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    )
    # The dependencies of this environment, but not this checkout: a path in a .pth is not searched
    # for further .pth files, so the editable install stays unseen.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            python,
            "install",
            "--no-deps",
            "--no-index",
            "--disable-pip-version-check",
            "-q",
            "--ignore-installed",
            wheel,
        ],
        check=True,
    )
    where = subprocess.run(
        [python, "-c", "import cli, embedstore; print(cli.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert str(home) in where

    def run(*words: object) -> str:
        done = subprocess.run(
            [home / "bin" / str(words[0]), *map(str, words[1:])],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "COLUMNS": "200"},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "ingest" in run("embedstore", "--help")
    run("embedstore", "add", "tiny", "--annotations", tiny.csv, "--slides", tiny.slides)
    model = ("--model", "timm:test_resnet")
    run("embedstore", "ingest", "tiny", *model, "--weights", "timm:test_resnet=random")
    run("probes", "run", "tiny", *model)
    out = run("embedstore", "sql", "select count(*) as n from results", "--format", "csv")
    assert out == "n\n35\n"
    assert (tmp_path / "store").is_dir()
