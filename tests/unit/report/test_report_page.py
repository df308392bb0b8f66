"""The page holds what was measured, loads nothing, and lets no name become code."""

import html
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_samples import (
    Page,
    closeness,
    collection,
    evaluation,
    generation,
    one_class,
    privacy,
    reconstruction,
    record,
    space,
    usefulness,
    without_scripts,
    written,
)

from prod9.data.volume_sets.volume_set import VolumeSet
from prod9.errors import Prod9Error
from prod9.report import report
from prod9.report.page import document
from prod9.report.report import Extra
from prod9.report.viewer import niivue
from prod9.results.schema import ClosePair, Evaluation

EVIL = "<script>alert('x')</script><img src=x onerror=\"alert(1)\">&amp;"


def full_sets() -> dict[str, VolumeSet]:
    return {
        "real": collection("real"),
        "generated": collection("generated", seed=1),
        "train": collection("train", seed=2),
        "originals": collection("real"),
        "reconstructed": collection("reconstructed", seed=3),
    }


def ids(page: Page) -> list[str]:
    return [attributes["id"] for attributes in page.tags("h2")]


def policy(page: Page) -> str:
    (found,) = (a["content"] for a in page.tags("meta") if "http-equiv" in a)
    return found


def assert_nothing_loads(html: str) -> None:
    page = Page(without_scripts(html))
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "audio", "video", "form")
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "srcset", "data", "poster", "action", "background"):
            assert re.match(r"data:image/png;base64,|#|$", attributes.get(name, "")), attributes
    for style in re.findall(r"<style>(.*?)</style>", html, flags=re.DOTALL):
        assert "url(" not in style
        assert "@import" not in style
    assert not re.search(r"<script[^>]*\bsrc\b", html)
    rules = policy(page)
    assert rules.startswith("default-src 'none'; ")
    assert "http" not in rules
    assert "*" not in rules
    assert "unsafe" not in rules


def test_everything_in_its_place(tmp_path: Path) -> None:
    extra = Extra("extra", "Extra", "from the demo", ("", "x"), [("<a>", "1 dB")])
    history = tmp_path / "history"
    history.mkdir()
    (history / "metrics.csv").write_text("epoch,step,train/loss\n0,1,0.5\n0,2,0.25\n")
    html, page = written(
        tmp_path,
        evaluation(masked_prediction={"loss": 3.5}),
        full_sets(),
        histories={"Stage 1": history, "Stage 2": tmp_path / "none"},
        configs={"Stage 1": "seed: 0\n"},
        extra=[extra],
    )
    sections = ["summary", "extra", "pictures", "look", "reconstruction", "generation"]
    sections += ["diversity", "usefulness", "privacy", "other", "training", "provenance"]
    assert ids(page) == sections
    links = [link["href"] for link in page.tags("a") if link["href"].startswith("#")]
    assert links == [f"#{name}" for name in sections]
    every = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(every) == len(set(every))
    assert_nothing_loads(html)
    for shown in (
        "⚠ Read before you quote a figure: 1 warning",
        "✕ Copies: training volumes come back",
        "3 near duplicates among 6 volumes.",
        "25.4 dB [25.1, 25.7]",
        "Fréchet distance ↓ 31.2 [29.0, 33.7]",
        "floor 12.5, 2.5 ×",
        "too few volumes to quote it",
        "⚠ Too few volumes: 44",
        "from about 2,300 volumes on",
        "Fitted limit for many volumes: 26.2",
        "LPIPS: not measured MedicalNet's weights are not there: no LPIPS (prod9 weights).",
        "80.7 % of the codes occur; perplexity 168",
        "recognised as their class: 97.7 %",
        "right on 99.8 % of held-out real ones",
        "EfficientNet-Lite0 (ImageNet), slices of three planes",
        "generated 0.112, held-out real 0.0903",
        "seed: 0",
    ):
        assert shown in page.text, shown
    likeness = page.row("diversity", "MS-SSIM of pairs within a class ↓")
    assert likeness == ["0.68 [0.64, 0.72]", "0.609", "up to 24 a class"]
    assert page.row("provenance", "generation") == ["44.9"]
    assert page.row("provenance", "threads") == ["2"]
    assert page.row("other", "loss") == ["3.500"]
    assert page.row("extra", "<a>") == ["1 dB"]
    # 6 real + 6 generated + 2 x 6 reconstructed, one pair of 3, the curve, one stage.
    assert len(page.tags("img")) == 12 + 12 + 3 + 1 + 1
    assert all(len(picture["alt"]) > 20 for picture in page.tags("img"))
    # In the viewer the originals, which are the real volumes, do not stand twice.
    assert "The 20 embedded volumes" in page.text
    assert "train/loss 0.25" in page.tags("img")[-1]["alt"]


def test_diversity_stands_beside_real_volumes_at_equal_numbers(tmp_path: Path) -> None:
    _, page = written(tmp_path, evaluation())
    # Not the 0.25 and 0.5 of 44 volumes against 610, which the floor's 30 against 305 are not.
    recall, coverage = (
        page.row("diversity", f"{name} ↑ (EfficientNet, ImageNet)")
        for name in ("Recall", "Coverage")
    )
    assert recall == ["0.300", "0.750", "30 / 305"]
    assert coverage == ["0.700", "0.875", "30 / 305"]
    alone = generation(spaces=[space(floor=None, floor_of=None, at_floor=None)])
    _, page = written(tmp_path, evaluation(generation=alone))
    recall = page.row("diversity", "Recall ↑ (EfficientNet, ImageNet)")
    assert recall == ["0.250", "not measured", "44 / 610"]
    few = space()  # a floor of so few volumes that one of its figures is not to be had
    assert few.at_floor is not None
    few = few.model_copy(update={"at_floor": few.at_floor.model_copy(update={"recall": None})})
    _, page = written(tmp_path, evaluation(generation=generation(spaces=[few])))
    recall, coverage = (
        page.row("diversity", f"{name} ↑ (EfficientNet, ImageNet)")
        for name in ("Recall", "Coverage")
    )
    assert recall == ["0.250", "not measured", "44 / 610"]
    assert coverage == ["0.700", "0.875", "30 / 305"]


def test_the_raw_figures_can_be_read_again(tmp_path: Path) -> None:
    measured = evaluation(reconstruction=reconstruction(psnr=math.inf, lpips_network="<&>"))
    text, _ = written(tmp_path, measured)
    (raw,) = re.findall(r"metrics.json</summary><pre>(.*?)</pre>", text, flags=re.DOTALL)
    assert json.loads(html.unescape(raw)) == json.loads(measured.model_dump_json())


def test_nothing_measured(tmp_path: Path) -> None:
    bare = Evaluation(sets={}, warnings=[], seconds={}, provenance={})
    text, page = written(tmp_path, bare)
    assert ids(page) == ["provenance"]
    assert "<script" not in text  # without a viewer the page runs nothing
    assert "script-src 'none'" in policy(page)
    assert_nothing_loads(text)


def test_all_that_may_be_null(tmp_path: Path) -> None:
    made = space().generated
    nothing = dict.fromkeys(["frechet_interval", "precision", "recall", "density", "coverage"])
    blind = space(
        generated=made.model_copy(update=nothing),
        floor=None,
        floor_of=None,
        at_floor=None,
        curve=[],
        frechet_limit=None,
        stable_from=None,
        per_class={},
    )
    g = generation(
        class_accuracy=None,
        classifier_real_accuracy=None,
        msssim=None,
        msssim_interval=None,
        msssim_real=None,
        nearest_train_p05=None,
        nearest_train_p05_real=None,
        per_class={},
        spaces=[blind],
        usefulness=None,
        privacy=None,
    )
    r = reconstruction(ssim=None, ms_ssim=None, foreground=None, per_class={}, intervals={})
    r = r.model_copy(update={"codebook_usage": None, "codebook_perplexity": None})
    warnings = ["The volumes are too small for SSIM."]
    measured = evaluation(generation=g, reconstruction=r, warnings=warnings)
    _, page = written(tmp_path, measured)
    assert ids(page) == ["summary", "reconstruction", "generation", "provenance"]
    assert "SSIM: not measured The volumes are too small for SSIM." in page.text
    assert page.row("generation", "Fréchet distance ↓")[:3] == ["31.2", "not measured", "–"]
    assert "too few even for a curve" in page.text
    assert "None" not in page.text.replace("null", "")


@pytest.mark.parametrize(
    ("verdict", "shown", "kind"),
    [
        ("no sign of copying", "✓ No sign of copied training volumes", "box good"),
        ("suspicious", "! Suspicious: training volumes may come back", "box warning"),
        ("copies", "✕ Copies: training volumes come back", "box bad"),
    ],
)
def test_the_verdict_is_said_in_words_too(
    tmp_path: Path, verdict: str, shown: str, kind: str
) -> None:
    g = generation(privacy=privacy(verdict=verdict), spaces=[space(stable=True)])
    _, page = written(tmp_path, evaluation(generation=g, warnings=[]))
    assert page.text.count(shown) == 2  # in the summary and in its section
    assert [a["class"] for a in page.tags("div") if a.get("class", "").startswith("box")] == [
        kind,
        kind,
    ]
    assert "✓ 44 volumes are enough" in page.text
    assert "No warnings were raised." in page.text


def test_no_name_becomes_code(tmp_path: Path) -> None:
    def evil(kind: str, **other: Any) -> VolumeSet:
        names = [f"{EVIL}{kind}{i}" for i in range(4)]
        return collection(EVIL, 4, (EVIL, "box"), names=names, **other)

    sets = {name: evil(name) for name in ("real", "generated", "train", "reconstructed")}
    pair = ClosePair(generated=f"{EVIL}generated0", train=f"{EVIL}train1", distance=0.1)
    near = space().generated
    g = generation(
        spaces=[
            space(space=EVIL, floor_of=EVIL, weights_sha256=EVIL, per_class={EVIL: near, "b": near})
        ],
        usefulness=usefulness(f"real {EVIL}"),
        per_class={EVIL: generation().per_class["box"], "b": generation().per_class["box"]},
        privacy=privacy(reasons=[EVIL], spaces=[closeness(EVIL)], closest=[pair]),
    )
    r = reconstruction(lpips=0.5, lpips_network=EVIL)
    measured = evaluation(
        sets={EVIL: record(EVIL)},
        generation=g,
        reconstruction=r.model_copy(update={"per_class": {EVIL: r, "b": r}}),
        warnings=[EVIL, f"`{EVIL}`"],
        seconds={EVIL: 1.0},
        provenance={EVIL: EVIL, "more": [EVIL]},
        translation={EVIL: {EVIL: EVIL}},
    )
    history = tmp_path / "history"
    history.mkdir()
    (history / "metrics.csv").write_text('epoch,step,train/loss,"<b>"\n0,1,0.5,1\n')
    html, page = written(
        tmp_path,
        measured,
        sets,
        title=EVIL,
        lead=EVIL,
        histories={EVIL: history},
        configs={EVIL: EVIL},
        extra=[Extra("x", EVIL, EVIL, (EVIL, ""), [(EVIL, EVIL)])],
    )
    assert_nothing_loads(html)
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    assert "<b>&quot" not in html
    assert page.text.count("<script>alert('x')</script><img src=x onerror=") >= 12
    assert html.count(niivue()) == 1
    rest = html.replace(niivue(), "")
    volumes = 3 * 4 + 2  # of three sets, and the closest pair
    # The library, and the viewer's own.
    assert rest.count("<script") == rest.count("</script>") == volumes + 2


def test_big_volumes_stay_small_in_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = (240, 240, 155)
    random = np.random.default_rng(0)
    head = np.zeros(shape, np.float32)
    head[60:180, 60:180, 40:120] = random.random((120, 120, 80), np.float32)
    toy = one_class("scans", 4)
    reads: list[int] = []

    def read(index: int) -> np.ndarray:
        reads.append(index)
        return head

    scans = VolumeSet(
        "scans", toy.names, toy.labels, toy.class_names, shape, (1.0, 1.0, 1.0), "x", read
    )
    packed: list[tuple[int, ...]] = []

    def nifti_bytes(array: np.ndarray, spacing: Any) -> bytes:
        packed.append(array.shape)
        return bytes(3_000_000)

    # Packing a scan takes seconds; what it does is the viewer's own test.
    monkeypatch.setattr(report, "nifti_bytes", nifti_bytes)
    monkeypatch.setattr(report, "VIEWER_BYTES", 9_000_000)
    sets = {"real": scans, "generated": scans}
    html, page = written(tmp_path, evaluation(generation=None), sets)
    assert packed == [shape] * 6  # three of each set
    assert "The 2 embedded volumes" in page.text
    assert "4 more did not fit into 9 MB" in page.text
    assert "Real: scans-0" in page.text
    assert "Generated: scans-0" in page.text
    pictures = sum(len(picture["src"]) for picture in page.tags("img"))
    assert len(page.tags("img")) == 8
    assert pictures < 8 * 90_000
    assert len(html) < 12_500_000
    assert len(reads) == 8 + 6


def test_volumes_without_classes(tmp_path: Path) -> None:
    sets = {"real": one_class("r"), "generated": one_class("g", 3)}
    g = generation(per_class={}, class_accuracy=None, usefulness=None, privacy=None)
    html, page = written(tmp_path, evaluation(generation=g), sets)
    assert "The first volumes of each set, in order; up to 9." in page.text
    assert len(page.tags("img")) == 5 + 3 + 1
    labels = re.findall(r'<div class="label">(.*?)</div>', html)
    assert labels == [""]


def test_the_size_of_a_demo(tmp_path: Path) -> None:
    classes = [f"region-{i}" for i in range(11)]
    sets = {
        name: collection(name, 44, classes, (28, 28, 28), seed)
        for seed, name in enumerate(("real", "generated", "train", "reconstructed"))
    }
    pairs = [ClosePair(generated=f"generated-{i}", train="train-0", distance=0.1) for i in range(9)]
    g = generation(privacy=privacy(closest=pairs))
    html, _ = written(tmp_path, evaluation(generation=g), sets)
    # Noise, which nothing compresses: real volumes take less.
    assert len(html.encode()) - len(niivue()) < 4_000_000
    assert niivue() in html


def test_the_same_page_each_time_and_without_a_display(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = written(tmp_path, evaluation(), full_sets())
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it fails
    again, _ = written(tmp_path, evaluation(), full_sets())
    assert first == again


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "page").touch()
    with pytest.raises(Prod9Error, match="cannot write"):
        written(tmp_path, evaluation())


def test_a_document_escapes_titles_and_links_its_sections() -> None:
    text = document("<t>", "a & b", [("one", "<One>", "<p>x</p>"), ("two", "Two", " ")], ["1"])
    page = Page(text)
    assert [a["href"] for a in page.tags("a")] == ["#one"]
    assert page.tags("h2") == [{"id": "one"}]
    assert "<t> a & b <One>" in page.text
    assert text.index("<script>1</script>") > text.index("</main>")


def test_names_that_are_no_utf8() -> None:
    assert "caf?" in document("caf\udce9", "", [])


def test_the_figures_of_scans_are_shown_as_a_range(tmp_path: Path) -> None:
    scores = {"psnr": 22.5, "psnr_per_scan": (22.0, 23.25, 22.25)}
    _, page = written(tmp_path, evaluation(translation={"scans": 3, "drawn": {"T1": scores}}))
    assert page.row("other", "scans") == ["3"]
    assert page.row("other", "drawn / T1 / psnr") == ["22.50"]
    assert page.row("other", "drawn / T1 / psnr_per_scan") == ["22.00 to 23.25 (3 values)"]
