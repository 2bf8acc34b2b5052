# SPDX-License-Identifier: Apache-2.0
"""The command line, and what the short demo writes."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

import pushforward as pf
from pushforward import cli


def test_info_prints_the_build(capsys):
    assert cli.main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line, (name, value) in zip(lines, pf.build_info().items(), strict=True):
        assert line.startswith(name)
        assert line.endswith(value)


def test_info_needs_nothing_of_the_demo():
    script = (
        "import sys\n"
        "for name in ('matplotlib', 'sklearn', 'scipy', 'tqdm'): sys.modules[name] = None\n"
        "from pushforward.cli import main\n"
        "sys.exit(main(['info']))"
    )
    assert subprocess.run([sys.executable, "-c", script], stdout=subprocess.DEVNULL).returncode == 0


def test_version(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"pushforward {pf.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "required: command"),
        (["nonsense"], "nonsense"),
        (["info", "--short"], "unrecognized arguments: --short"),
        (["demo", "--seed", "-1"], "expected an integer with 0 <= seed < 2**63, got -1"),
        (["demo", "--seed", str(2**63)], "0 <= seed < 2**63"),
        (["demo", "--seed", "1.5"], "got 1.5"),
        (["demo", "--out"], "--out"),
    ],
)
def test_bad_arguments(arguments, complaint, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    assert exit_.value.code == 2
    assert complaint in capsys.readouterr().err


def test_a_folder_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert cli.main(["demo", "--short", "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"pushforward: --out: cannot write to {out}: ")
        assert error.count("\n") == 1


@pytest.mark.parametrize("module", ["matplotlib", "sklearn", "scipy"])
def test_missing_demo_extra(module, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, module, None)
    assert cli.main(["demo", "--short", "--out", str(tmp_path / "new")]) == 2
    error = capsys.readouterr().err
    assert "pip install pushforward[demo]" in error
    assert module in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_interrupt(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_info", interrupted)
    assert cli.main(["info"]) == 130
    assert capsys.readouterr().err == "pushforward: interrupted\n"


# ---- the distances that the demo reports ---------------------------------------------------------


def test_wasserstein_of_a_translation_is_its_length():
    from pushforward.demo.distances import wasserstein

    points = np.random.default_rng(0).normal(size=(200, 2))
    shuffled = points[::-1] + np.array([3.0, 4.0])  # the best plan moves every point alike
    assert wasserstein(points, shuffled) == pytest.approx(5.0, rel=1e-12)


def test_frechet_of_scaled_samples_in_closed_form():
    from pushforward.demo.distances import frechet

    x = np.random.default_rng(0).normal(size=(500, 3))
    y = 2 * x + [1.0, 0.0, 0.0]  # covariances commute: |m_a - m_b|^2 + tr (C_b^1/2 - C_a^1/2)^2
    gap = y.mean(0) - x.mean(0)
    truth = gap @ gap + np.trace(np.cov(x, rowvar=False))
    assert frechet(x, y) == pytest.approx(truth, rel=1e-10)
    assert frechet(x, x) == pytest.approx(0.0, abs=1e-10)


def test_nearest_leaves_a_point_itself_out():
    from pushforward.demo.distances import nearest

    points = np.array([[0.0], [1.0], [3.0]])
    assert nearest(points, points)[0].tolist() == [0, 0, 0]
    distance, which = nearest(points, points, same=True)
    assert distance.tolist() == [1, 1, 2]
    assert which.tolist() == [1, 0, 1]


def test_table_text_is_aligned():
    from pushforward.demo.table import Table

    text = Table("title", ("", "a<b"), (("first", "1"), ("second", "1234"))).text()
    assert text.splitlines()[2:6] == [
        "         a<b",
        "------------",
        "first      1",
        "second  1234",
    ]
    assert "a&lt;b" in Table("title", ("", "a<b"), ()).html()


# ---- the demo ------------------------------------------------------------------------------------


def run_short(out):
    return subprocess.run(
        [sys.executable, "-m", "pushforward", "demo", "--short", "--seed", "1", "--out", str(out)],
        capture_output=True, text=True, encoding="utf-8", timeout=600,
        # one thread is enough here, and a busy machine makes two wait for each other
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def short_demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "made" / "by it"
    done = run_short(out)
    assert done.returncode == 0, done.stderr
    return out, done


def rows(text):
    """Cells of the two tables on the terminal, by the name of the row."""
    lines = [re.split(r"\s{2,}", line) for line in text.splitlines() if not line.startswith(" ")]
    return {cells[0]: cells[1:] for cells in lines if len(cells) > 4}


def test_demo_is_silent_on_a_stderr_that_nobody_watches(short_demo):
    assert short_demo[1].stderr == ""


def test_demo_says_what_runs(short_demo):
    text = short_demo[1].stdout
    for stage in ("Ring:", "Digits: training", "Digits: drawing", "Measuring", "Figures"):
        assert stage in text
    assert str(short_demo[0] / "report.html") in text


def test_ring_reaches_the_floor(short_demo):
    table = rows(short_demo[1].stdout)
    floor = float(table["exact draws"][0].split(" ± ")[0])
    for name in ("native run", "fused update", "plain torch"):
        distance, error = map(float, table[name][0].split(" ± "))
        # a mode missed, or all chains at the start, is more than 1: three times the floor
        assert 0.5 * floor < distance < 2 * floor
        assert 0 < error < 0.5 * floor
        assert table[name][1] == "8 of 8"
    assert table["native run"][:3] == table["fused update"][:3]  # the same noise
    assert table["plain torch"][0] != table["native run"][0]


def test_native_and_fused_agree_to_rounding(short_demo):
    # A chain on the ridge between two modes doubles a rounding error every few steps, so that a
    # rare one may part; a wrong kernel parts them all.
    share = re.search(r"([\d.]+) % of their chains agree to rounding", short_demo[1].stdout)
    assert float(share.group(1)) >= 99.9


def test_digits_are_digits(short_demo):
    table = rows(short_demo[1].stdout)
    floor = float(table["real digits"][0].split(" ± ")[0])
    for name in ("SDE (α = 1)", "ODE (α = 0)"):
        # noise is at a distance of 20 and the mean digit at 30
        assert float(table[name][0].split(" ± ")[0]) < 8 * floor
        assert int(table[name][3].split()[0]) >= 8
        assert float(table[name][1]) > 0.5 * float(table["real digits"][1])  # no copies


def test_report_stands_alone(short_demo):
    page = (short_demo[0] / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|<script|<link|url\(", page)
    sources = re.findall(r'\b(?:src|srcset|href)="([^"]*)"', page)
    assert len(sources) >= 10
    assert all(source.startswith("data:image/png;base64,") for source in sources)


def test_report_has_the_tables_and_the_versions(short_demo):
    page = (short_demo[0] / "report.html").read_text(encoding="utf-8")
    for name, cells in rows(short_demo[1].stdout).items():
        assert f">{name}<" in page
        assert all(f">{cell}<" in page for cell in cells)
    for name, value in pf.build_info().items():
        if name != "threads":
            assert f"<dt>{name}</dt><dd>{value}</dd>" in page
    assert "<dt>seed</dt><dd>1</dd>" in page


def test_figures_lie_beside_the_report(short_demo):
    figures = sorted(short_demo[0].glob("*.png"))
    assert len(figures) >= 10
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in figures)
    assert not [path for path in short_demo[0].iterdir() if path.suffix not in (".png", ".html")]


@pytest.mark.slow
def test_a_seed_gives_one_table(short_demo, tmp_path):
    again = rows(run_short(tmp_path).stdout)
    for name, cells in rows(short_demo[1].stdout).items():
        timed = 2 if "±" in cells[2] else 1  # rate and speed, or seconds
        assert again[name][:-timed] == cells[:-timed]
