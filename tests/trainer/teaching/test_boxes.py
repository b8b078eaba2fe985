# SPDX-License-Identifier: GPL-3.0-or-later
"""Labels of a user's recordings: read in three ways, and refused in one sentence where nothing can be learnt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.labelled_recordings import (
    BOX_SAMPLES,
    N_SAMPLES,
    RATE_HZ,
    annotation,
    make_recordings,
    wide,
    write_sigmf,
)
from support.toy_runs import TILE_SPEC
from wavesfm_core.errors import InputError
from wavesfm_trainer.teaching.boxes import Box, Collected, Source, check_boxes
from wavesfm_trainer.teaching.corrections import correct, corrections_text
from wavesfm_trainer.teaching.folds import make_folds
from wavesfm_trainer.teaching.sources import collect
from wavesfm_trainer.teaching.verdicts import Verdict

NOISE = np.random.default_rng(0).standard_normal((N_SAMPLES, 2)) @ np.array([0.02, 0.02j])


def checked(path, known=()):
    return check_boxes(collect(path, TILE_SPEC), path, known)


def box(label, group, start=0, side="", name="a"):
    return Box(Source(Path(name), name), label, start, start + 100, None, None, group, f"line {start}", side)


# --- the three ways


def test_annotations_are_boxes_from_the_middle_of_the_band(tmp_path):
    write_sigmf(tmp_path / "a", NOISE, [annotation(100, "x", 50e3), annotation(20_000, "y", sample_count=None)])
    found = collect(tmp_path, TILE_SPEC)
    first, second = found.boxes
    assert (first.label, first.start, first.stop) == ("x", 100, 100 + BOX_SAMPLES)
    assert (first.low_hz, first.high_hz) == (20e3, 80e3)
    assert second.stop == N_SAMPLES and first.group == second.group == "a.sigmf-meta"


def test_what_has_no_label_is_counted(tmp_path):
    write_sigmf(tmp_path / "a", NOISE, [annotation(100, "x"), annotation(9_000, "y"), annotation(20_000, "")])
    write_sigmf(tmp_path / "b", NOISE, [])
    found = collect(tmp_path, TILE_SPEC)
    assert len(found.boxes) == 2
    assert "without a labelled annotation, left out: b.sigmf-meta" in " ".join(found.notes)
    assert "without core:label, left out: 1" in " ".join(found.notes)


def test_recordings_of_one_folder_are_one_group(tmp_path):
    for name in ("car/a", "car/b", "c"):
        write_sigmf(tmp_path / name, NOISE, [annotation(100, "x")])
    assert [each.group for each in collect(tmp_path, TILE_SPEC).boxes] == ["c.sigmf-meta", "car", "car"]


def test_a_folder_is_a_label_and_its_signals_are_found(tmp_path):
    rng = np.random.default_rng(1)
    signal = NOISE.copy()
    at = np.arange(20_000, 50_000)
    signal[at] += wide(len(at), rng) * np.exp(2j * np.pi * 0.1 * at)
    for name in ("x/1", "x/2", "y/site/1", "y/site/2"):
        write_sigmf(tmp_path / name, signal, [])
    found = collect(tmp_path, TILE_SPEC)
    assert found.labels == ("x", "y")
    assert {each.group for each in found.boxes} == {"x/1.sigmf-meta", "x/2.sigmf-meta", "y/site"}
    for each in found.boxes:
        assert each.low_hz < 100e3 < each.high_hz and each.high_hz - each.low_hz < 200e3
        assert 18_000 < each.start < each.stop < 52_000


def test_a_table_has_boxes_groups_and_sides(tmp_path):
    NOISE.astype(np.complex64).tofile(tmp_path / "a.cf32")
    table = tmp_path / "labels.csv"
    table.write_text(
        "file,label,start,count,low_hz,high_hz,group,split,rate_hz\n"
        "a.cf32,x,0,9000,-1000,1000,g,train,1e6\na.cf32,y,9000,9000,,,h,test,1e6\n"
    )
    first, second = collect(table, TILE_SPEC).boxes
    assert (first.low_hz, first.high_hz, first.group, first.side) == (-1000, 1000, "g", "train")
    assert (second.low_hz, second.stop, second.side, second.field) == (None, 18_000, "test", "line 3")


# --- what is refused, each in one sentence with file, field, found, expected


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        (
            [annotation(N_SAMPLES - 10, "x")],
            r"a\.sigmf-data: annotations\[0\] 'x': found samples 59990 to",
        ),
        (
            [annotation(0, "x", 500e3)],
            r"annotations\[0\] 'x': found 433470000 to 433530000 Hz, expected",
        ),
        ([annotation(0, "x", freq_upper_edge=1.0)], "expected a rising pair of edges"),
        (
            [annotation(0, "x"), annotation(1_000, "y")],
            r"annotations\[0\], sample 1000: found 'x' and 'y' \(annotations\[1\]\) in one place, expected one label",
        ),
        ([annotation(0, "x"), annotation(9_000, "x")], r"labels: found 'x' alone, expected two or more"),
        ([annotation(0, "x"), annotation(9_000, "y"), annotation(30_000, "y")], "label 'x': found 1 box in all"),
        ([], r"annotations: found none with core:label, expected annotations with core:label, a folder"),
    ],
)
def test_wrong_boxes_are_refused(tmp_path, annotations, message):
    write_sigmf(tmp_path / "a", NOISE, annotations)
    with pytest.raises(InputError, match=message):
        checked(tmp_path)


def test_boxes_side_by_side_may_touch(tmp_path):
    write_sigmf(
        tmp_path / "a",
        NOISE,
        [annotation(0, "x"), annotation(0, "y", 55e3), annotation(9_000, "x"), annotation(9_000, "y", 55e3)],
    )
    assert checked(tmp_path).labels == ("x", "y")


def test_one_label_alone_extends_a_model_that_knows_others():
    found = Collected((box("x", "a"), box("x", "b", 200)))
    assert check_boxes(found, "folder", ("noise",)).labels == ("x",)


def test_a_transmitter_on_both_sides_is_refused():
    boxes = [box("x", "g", 0, "train"), box("y", "h", 200, "test"), box("x", "g", 400, "test")]
    boxes.append(box("y", "h", 600, "test"))
    with pytest.raises(InputError, match=r"group, line 400: found 'g' in train \(line 0\) and test, expected a trans"):
        check_boxes(Collected(tuple(boxes)), "table")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,name\n", "column 'label': found file, name"),
        ("file,label,colour\n", "column 'colour'"),
        ("file,label\na.cf32,\n", "line 2: found"),
        ("file,label,start,rate_hz\na.cf32,x,one,1e6\n", "line 2, start: found 'one', expected a number"),
        ("file,label,split,rate_hz\na.cf32,x,half,1e6\n", "line 2, split: found 'half'"),
        ("file,label,start,low_hz,rate_hz\na.cf32,x,0,5,1e6\n", "line 2, low_hz and high_hz: found one of them"),
        (
            "file,label,start,count,rate_hz\na.cf32,x,0,99999,1e6\n",
            r"line 2 of labels\.csv, 'x': found samples 0 to",
        ),
        ("file,label\nb.cf32,x\n", r"b\.cf32"),
    ],
)
def test_wrong_tables_are_refused(tmp_path, text, message):
    NOISE.astype(np.complex64).tofile(tmp_path / "a.cf32")
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        collect(tmp_path / "labels.csv", TILE_SPEC)


# --- what is held back


def test_a_group_is_in_one_part_and_every_label_in_two():
    boxes = [box(label, f"{label}{k // 3}", k) for label in "xyz" for k in range(12)]
    folds = make_folds(boxes)
    for group in {each.group for each in boxes}:
        assert len({folds.part[at] for at, each in enumerate(boxes) if each.group == group}) == 1
    for label in "xyz":
        assert len({folds.part[at] for at, each in enumerate(boxes) if each.label == label}) >= 2
    assert folds.by_time == () and "split by time" not in folds.words


def test_a_label_of_one_recording_is_split_by_time_and_this_is_said():
    boxes = [box("x", f"g{k}", k) for k in range(4)] + [box("y", "one", 1000 - k) for k in range(4)]
    folds = make_folds(boxes)
    parts = [int(folds.part[4 + k]) for k in range(4)]
    assert parts == sorted(parts, reverse=True) and len(set(parts)) >= 2  # later boxes are in later parts
    assert folds.by_time == ("y",) and "split by time, which flatters the figures: y" in folds.words


def test_the_split_of_a_table_is_kept():
    boxes = [box("x", "a", 0, "train"), box("x", "b", 200, "test"), box("y", "c", 400), box("y", "d", 600, "test")]
    folds = make_folds(boxes)
    assert folds.part.tolist() == [-1, 0, -1, 0] and folds.chosen


# --- corrections


def test_corrected_labels_come_back(tmp_path):
    found = collect(make_recordings(tmp_path / "r", files=2), TILE_SPEC)
    doubts = [Verdict("", each.label, "tone", "tone", 0.5, np.zeros(3), at) for at, each in enumerate(found.boxes[:3])]
    lines = corrections_text(found.boxes, doubts).splitlines()
    assert lines[0].startswith("file,start,count,low_hz,high_hz,label,was")
    fields = [line.split(",") for line in lines[1:]]
    fields[0][5], fields[1][5] = "new", ""
    table = tmp_path / "corrections.csv"
    table.write_text("\n".join([lines[0], *(",".join(row) for row in fields)]) + "\n")
    again = correct(found, table)
    assert again.boxes[0].label == "new" and len(again.boxes) == len(found.boxes) - 1
    assert "Corrected labels: 1; boxes left out: 1" in again.notes[-1]
    table.write_text(lines[0] + "\nother.sigmf-meta,0,5,,,x,x,x,0.1\n")
    with pytest.raises(InputError, match=r"line 2: found other\.sigmf-meta, samples 0 to 5, which is 0 boxes"):
        correct(found, table)


def test_rates_of_a_real_recording_are_half(tmp_path):
    meta = write_sigmf(tmp_path / "a", NOISE, [annotation(200, "x", sample_count=400, freq_lower_edge=None)])
    meta.write_text(meta.read_text().replace("cf32_le", "rf32_le"))
    (found,) = collect(tmp_path, TILE_SPEC).boxes
    assert (found.start, found.stop, found.low_hz) == (100, 300, None)
    with found.source.open() as recording:
        assert recording.rate_hz == RATE_HZ / 2
