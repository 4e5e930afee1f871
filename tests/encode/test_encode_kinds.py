"""Signals, tables and volumes: units, names, geometry."""

import json

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.encode import Encode, from_json
from fabrica.encode.signal import SignalEncode
from fabrica.encode.table import TableEncode
from fabrica.encode.volume import VolumeEncode, canonical
from fabrica.errors import Refused, UsageError
from fabrica.types import Item, Origin, Record

SOURCE = Origin("synthetic", "x", "", "CC0-1.0")
RNG = np.random.default_rng(0)


def wave(hz, rate, seconds, leads=("I", "II")):
    t = np.arange(int(rate * seconds)) / rate
    return Item(
        "signal", np.stack([np.sin(2 * np.pi * hz * t)] * len(leads)), SOURCE, rate=rate, names=leads, unit="mV"
    )


@pytest.mark.parametrize(("have", "want"), [(500, 100), (360, 250), (100, 500), (257.3, 128)])
def test_resampling_keeps_a_tone(have, want):
    got = SignalEncode(want, 4.0, ("I",))(wave(5, have, 4), RNG)[0]
    t = np.arange(len(got)) / want
    inside = slice(int(want / 2), -int(want / 2))
    assert np.abs(got - np.sin(2 * np.pi * 5 * t))[inside].max() < 0.03


def test_leads_by_name_in_the_asked_order():
    item = Item(
        "signal", np.stack([np.full(50, v) for v in (1.0, 2.0)]), SOURCE, rate=50, names=("v1", "II"), unit="uV"
    )
    got = SignalEncode(50, 2.0, ("II", "aVR", "V1"))(item, RNG)
    assert got.shape == (3, 100)
    assert np.allclose(got[:, 10], [0.002, 0, 0.001])  # uV -> mV
    assert got[:, 50:].max() == 0  # shorter than two seconds: zeros after it
    with pytest.raises(Refused, match="signal_leads"):
        SignalEncode(50, 1.0, ("V6",))(item, RNG)
    bare = Item("signal", np.ones((3, 50)), SOURCE, rate=50)
    assert SignalEncode(50, 1.0, ("a", "b", "c"))(bare, RNG).min() == 1
    with pytest.raises(Refused, match="signal_leads"):
        SignalEncode(50, 1.0, ("a", "b"))(bare, RNG)


def test_crops_start_centre_and_random():
    item = Item("signal", np.arange(100.0)[None], SOURCE, rate=10, names=("I",))
    assert SignalEncode(10, 2.0, ("I",))(item, RNG)[0, 0] == 0
    assert SignalEncode(10, 2.0, ("I",), crop="centre")(item, RNG)[0, 0] == 40
    random = SignalEncode(10, 2.0, ("I",), crop="random")
    assert len({float(random(item, np.random.default_rng(s))[0, 0]) for s in range(40)}) > 10
    assert random.still()(item, RNG)[0, 0] == 40


def test_gaps_take_the_leads_mean_and_rates_must_be_known():
    a = np.array([[1.0, np.nan, 3.0, np.nan]])
    assert SignalEncode(4, 1.0, ("I",))(Item("signal", a, SOURCE, rate=4, names=("I",)), RNG)[0].tolist() == [
        1,
        2,
        3,
        2,
    ]
    for rate in (None, 0.0, float("nan")):
        with pytest.raises(Refused, match="signal_rate"):
            SignalEncode(4, 1.0, ("I",))(Item("signal", a, SOURCE, rate=rate, names=("I",)), RNG)


def table(**values):
    return Item("table", np.array(list(values.values())), SOURCE, names=tuple(values))


def labs(rows):
    return [Record(str(i), str(i), items={"labs": (table(**r),)}) for i, r in enumerate(rows)]


def test_percentiles_flags_and_train_mean_fill():
    fitted = TableEncode.fit(labs([{"na": float(v)} for v in range(101)] + [{"k": 4.0}]), ["labs"], percentiles=True)
    assert fitted.columns == ("k", "na")
    assert np.allclose(fitted(table(na=25.0), RNG), [0.5, 0.25, 0, 1])  # k missing: its training mean percentile
    assert np.allclose(fitted(table(na=-9.0, k=4.0), RNG), [0.5, 0.0, 1, 1])
    assert np.allclose(fitted(table(na=999.0, other=1.0), RNG)[1], 1.0)
    assert np.allclose(fitted(table(na=25.5), RNG)[1], 0.255)


def test_z_scores_and_constant_columns():
    fitted = TableEncode.fit(labs([{"a": 1.0, "b": 5.0}, {"a": 3.0, "b": 5.0}]), ["labs"], columns=("b", "a"))
    assert fitted(table(a=3.0, b=5.0), RNG).tolist() == [0, 1, 1, 1]
    assert fitted(table(a=3.0, b=float("nan")), RNG).tolist() == [0, 1, 0, 1]  # NaN is missing, not zero measured
    assert fitted(table(b=5.0), RNG).shape == fitted.shape
    with pytest.raises(UsageError, match="'c'"):
        TableEncode.fit(labs([{"a": 1.0}]), ["labs"], columns=("c",))
    with pytest.raises(Refused, match="table_shape"):
        fitted(Item("table", np.zeros(3), SOURCE, names=("a",)), RNG)


@given(st.permutations(["a", "b", "c"]), st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3))
def test_the_order_of_columns_in_the_item_changes_nothing(order, values):
    encode = TableEncode(("a", "b", "c"), (0.0, 1.0, 2.0), (1.0, 2.0, 3.0))
    named = dict(zip("abc", values, strict=True))
    assert np.array_equal(encode(table(**named), RNG), encode(table(**{k: named[k] for k in order}), RNG))


@settings(deadline=None, max_examples=30)
@given(st.permutations(range(3)), st.tuples(*[st.sampled_from([-1, 1])] * 3), st.integers(0, 99))
def test_canonical_axes_are_nibabels(order, signs, seed):
    rng = np.random.default_rng(seed)
    data = rng.random((2, 3, 4)).astype(np.float32)
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, list(order)] * np.array(signs) * np.array([1.0, 2.0, 3.0])
    affine[:3, 3] = rng.random(3)
    affine[:3, :3] += rng.normal(0, 0.05, (3, 3))  # slightly oblique
    got, moved = canonical(data, affine)
    want = nib.as_closest_canonical(nib.Nifti1Image(data, affine))
    assert np.array_equal(got, want.get_fdata(dtype=np.float32))
    assert np.allclose(moved, want.affine)


def test_volumes_are_resampled_to_their_spacing_and_centred():
    item = Item("volume", np.ones((10, 10, 5), np.float32), SOURCE, affine=np.diag([1.0, 1, 2, 1]))
    got = VolumeEncode((16, 16, 16), spacing=(1, 1, 1), window=(0, 1))(item, RNG)
    assert got.shape == (1, 16, 16, 16)
    assert got.sum() == pytest.approx(1000)  # 10 x 10 x 10 of one
    assert got[0, 3:13, 3:13, 3:13].min() == 1
    assert VolumeEncode((8, 8, 8), window=(0, 1))(item, RNG).min() == 1
    for value, code in ((np.zeros((3, 3)), "volume_shape"), (np.full((2, 2, 2), np.inf), "volume_nonfinite")):
        with pytest.raises(Refused) as error:
            VolumeEncode((4, 4, 4))(Item("volume", value, SOURCE), RNG)
        assert error.value.code == code
    with pytest.raises(Refused, match="volume_affine"):
        VolumeEncode((4, 4, 4))(Item("volume", np.zeros((2, 2, 2)), SOURCE, affine=np.diag([0.0, 1, 1, 1])), RNG)


@pytest.mark.parametrize(
    "encode",
    [
        SignalEncode(100.0, 2.5, ("I", "II"), "random", "zscore"),
        TableEncode.fit(labs([{"a": 1.0}, {"a": 3.0}]), ["labs"], percentiles=True),
        VolumeEncode((4, 5, 6), (1.0, 1.0, 2.0), (-100.0, 100.0)),
    ],
    ids=["signal", "table", "volume"],
)
def test_json_round_trips(encode):
    assert isinstance(encode, Encode)
    assert from_json(json.loads(json.dumps(encode.to_json()))) == encode
