# SPDX-License-Identifier: GPL-3.0-or-later
"""Reader of UWB logs: fixtures with the lines that DecaRanging writes; real logs are read if present."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from wavesfm_core.errors import InputError
from wavesfm_trainer.data.readers import dw1000
from wavesfm_trainer.data.readers.dw1000 import read_links
from wavesfm_trainer.data.splits import groups_on_two_sides, split_examples
from wavesfm_trainer.data.tasks import Task, read_task

PLACE = Task("t", "position", "dw1000", 1, axes=("x", "y"))

FRAME = (
    "21 4B Rx time(un) = 1.0e+001 953B901800\r\n\r\ntxdly 4045 rxdly 4045\r\nRX DATA: 41cc4b\r\n\r\n"
    "RX {state} WInd(0735), {path}PSC(0100), SLP(0000.0000), NTH(077A), RSL(-078.9641)\r\nAccum Len {taps}\r\n"
)


def reception(poll, taps=64, first_path=20.0, height=1000, failed=False):
    """What DecaRanging logs for one frame: a pulse at first_path (whole or half taps)."""
    magnitude = np.interp(np.arange(taps), [first_path - 1, first_path, first_path + 1], [0, height, 0])
    lines = "".join(f"{round(0.6 * m)}, {round(-0.8 * m)}\r\n" for m in magnitude)
    state, path = ("E\x00", "") if failed else ("OK", f"HLP({first_path:09.4f}), ")
    start = "21 4B Rx time = 1.0e+001 953B8FDBD7\r\n" if poll else "29 4C Rx time = 1.0e+001 9A70917D5E\r\n"
    return start + FRAME.format(state=state, path=path, taps=taps) + lines


def ranging(range_m, **changes):
    distance = f"Anchor ToF: 8.986 ns Dist: {range_m} m DistRaw: {range_m} m Bias: -0.090 m\r\n"
    return reception(True, **changes) + reception(False, **changes) + distance


def write_apartment(root, logs=("1", "2", "3"), n=8):
    """Two tags: 1 with anchors 1 and 2, 2 with anchor 3."""
    (root / "anchors.csv").write_text("location,x,y\n1,0,0\n2,4,0\n3,0,3\n")
    (root / "tags.csv").write_text("location,x,y\n1,1.5,2\n2,3,3\n")
    (root / "pairs.csv").write_text("file_number,anchor_location,tag_location\n1,1,1\n2,2,1\n3,3,2\n9,1,2\n")
    (root / "labels.csv").write_text("file_id,label\n1,LOS\n2,NDP NLOS\n3,LOS\n")
    for log, range_m in zip(logs, (2.55, 3.30, 3.0)):
        (root / f"{log}.log").write_text("File:x.log\r\n" + ranging(range_m) * n, newline="")


def test_a_profile_has_its_first_path_at_the_measured_distance(tmp_path):
    path = tmp_path / "1.log"
    path.write_text(ranging(3.0) + ranging(6.0, first_path=30.5, height=500), newline="")
    (near, far), left_out = dw1000.read_exchanges(path)
    assert left_out == {} and len(near.responses) == 2 and near.responses[0].first_path == 20
    assert near.responses[0].magnitude[20] == pytest.approx(10)  # |(600, -800)| over 100 symbols
    grid_m = np.arange(100) * 0.1
    assert grid_m[near.profile(grid_m).argmax()] == pytest.approx(3.0)
    assert abs(grid_m[far.profile(grid_m).argmax()] - 6.0) < dw1000.TAP_M
    assert near.profile(grid_m).max() == pytest.approx(10, rel=0.01)
    assert near.profile(np.array([3.0 + 60 * dw1000.TAP_M])) == 0  # beyond the accumulator


def test_what_has_no_distance_is_left_out_with_a_count(tmp_path):
    whole = ranging(3.0)
    cut = reception(False)
    text = (
        whole
        + reception(True)  # the final frame is lost: no distance follows
        + reception(True)
        + reception(False, failed=True)
        + "Anchor ToF: 8.986 ns Dist: 3.0 m DistRaw: 3.0 m\r\n"
        + whole
        + cut[: len(cut) - 60]
    )
    path = tmp_path / "1.log"
    path.write_text(text, newline="")
    exchanges, left_out = dw1000.read_exchanges(path)
    assert [len(e.responses) for e in exchanges] == [2, 1, 2]
    assert left_out == {"responses without a distance": 1, "failed receptions": 1, "responses cut short": 1}


def test_positions_have_a_block_of_rows_for_every_anchor(tmp_path):
    write_apartment(tmp_path)
    raws = list(dw1000.READER.read(tmp_path, replace(PLACE, options={"exchanges": 4})))
    assert [(r.source, r.group) for r in raws] == [
        *((f"1.log+2.log[{i}]", "tag 1") for i in (0, 1)),
        *((f"3.log[{i}]", "tag 2") for i in (0, 1)),
    ]
    np.testing.assert_array_equal(raws[0].target, np.float32([1.5, 2]))
    image = raws[0].load(1)
    assert image.shape == (1, 12, 224)
    assert (image[0, :4].argmax(1) == 17).all() and (image[0, 4:8].argmax(1) == 22).all()  # 2.55 and 3.30 m by 0.15 m
    assert not image[0, 8:].any() and not raws[2].array[0, :8].any() and raws[2].array[0, 8:].any()


def test_links_are_classes_of_sight(tmp_path):
    write_apartment(tmp_path)
    task = Task("t", "classification", "dw1000", 1, labels=("LOS", "NDP NLOS"), options={"exchanges": 8})
    raws = list(dw1000.READER.read(tmp_path, task))
    assert [(r.source, r.target, r.group) for r in raws] == [
        ("1.log[0]", 0, "tag 1"),
        ("2.log[0]", 1, "tag 1"),
        ("3.log[0]", 0, "tag 2"),
    ]
    assert raws[0].load(1).shape == (1, 8, 224)
    with pytest.raises(InputError, match=r"2\.log: label: found 'NDP NLOS', expected one of LOS, NLOS"):
        list(dw1000.READER.read(tmp_path, replace(task, labels=("LOS", "NLOS"))))
    with pytest.raises(InputError, match=r"1\.log: exchanges: found 8, expected at least 9"):
        list(dw1000.READER.read(tmp_path, replace(task, options={"exchanges": 9})))


def test_uwb_tables_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"pairs\.csv: found nothing, expected pairs\.csv, anchors\.csv and tags"):
        read_links(tmp_path)
    write_apartment(tmp_path, logs=("1", "77"))
    with pytest.raises(InputError, match=r"logs: found 77\.log, expected logs with a row in the table"):
        list(dw1000.READER.read(tmp_path, PLACE))
    (tmp_path / "tags.csv").write_text("location,x,y\n1,1.5,2\n")
    with pytest.raises(InputError, match=r"tag_location of 3: found 2, expected one of 1"):
        read_links(tmp_path)
    (tmp_path / "tags.csv").write_text("location,x,y\n1,1.5,two\n2,0,nan\n")
    with pytest.raises(InputError, match=r"tags\.csv: location 1: found x '1\.5', y 'two', expected two numbers"):
        read_links(tmp_path)
    (tmp_path / "tags.csv").write_text("name,x\n1,2\n")
    with pytest.raises(InputError, match=r"tags\.csv: columns: found name, x, expected location, x, y"):
        read_links(tmp_path)


def test_a_manifest_may_say_where_anchors_and_tags_stood(tmp_path):
    note = "furnished apartment; anchor 1 at ['7.76', '8.1'] m, tag 4 at ['6.06', '-8.39'] m; channel 2"
    (tmp_path / "manifest.csv").write_text(f'file,label,notes\nuwb/9.log,NLOS,"{note}"\na/b.cu8,noise,hiss\n')
    (tmp_path / "uwb").mkdir()
    links = read_links(tmp_path / "uwb")
    assert list(links) == ["9"] and links["9"].label == "NLOS"
    assert links["9"].anchor.xy_m == (7.76, 8.1) and links["9"].tag.name == "4" and links["9"].tag.xy_m[1] == -8.39


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"exchanges: found none"),
        (
            ranging(3.0).replace("Accum Len 64", "Accum Len 999999999"),
            r"Accum Len: found 999999999, expected 1 to 1016",
        ),
        (ranging(3.0, first_path=70.0), r"HLP: found 70\.0, expected a tap of the accumulator, 0 to 63"),
    ],
)
def test_logs_that_are_none_are_refused(tmp_path, text, message):
    path = tmp_path / "1.log"
    path.write_text(text, newline="")
    with pytest.raises(InputError, match=message):
        dw1000.read_exchanges(path)


# --- the real logs


@pytest.mark.parametrize(("name", "n"), [("uwb-position", 243), ("uwb-nlos", 490)])
def test_real_logs_split_without_a_place_on_two_sides(shared_data, name, n):
    task = read_task(name)
    raws = list(dw1000.READER.read(shared_data / "uwb_cir_apartment", task))
    arrays = np.stack([raw.load(1) for raw in raws])
    assert len(raws) == len({raw.source for raw in raws}) == n and arrays.std() > 0
    sides = split_examples(raws, task, task.split, seed=0)
    assert set(sides) == {0, 1, 2} and not groups_on_two_sides(raws, sides)


def test_real_ranges_fit_the_rooms_geometry(shared_data):
    root = shared_data / "uwb_cir_apartment"
    links = read_links(root)
    grid_m = np.arange(224) * 0.15
    for log in ("1", "12", "34", "27"):
        exchanges, _ = dw1000.read_exchanges(root / f"{log}.log")
        anchor, tag = links[log].anchor.xy_m, links[log].tag.xy_m
        geometry_m = float(np.hypot(anchor[0] - tag[0], anchor[1] - tag[1]))
        excess_m = np.median([e.range_m for e in exchanges]) - geometry_m
        if links[log].label != "LOS":
            assert excess_m > 1  # the path that was found is a detour
            continue
        assert 0 < excess_m < 0.35
        profile = np.mean([e.profile(grid_m) for e in exchanges], axis=0)
        edge_m = grid_m[np.argmax(profile > 0.25 * profile.max())]
        assert abs(edge_m - geometry_m) < 0.5
