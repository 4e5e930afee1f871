"""Images: values, geometry, augmentation; golden values computed by hand or by scipy."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from fabrica.encode import from_json
from fabrica.encode.augment import MedicalImageAugment, Views, blur
from fabrica.encode.image import ImageEncode, axial
from fabrica.errors import FabricaError, Refused, UsageError
from fabrica.types import Absent, Item, Origin

SOURCE = Origin("synthetic", "x", "", "CC0-1.0")
RNG = np.random.default_rng(0)
STILL = MedicalImageAugment((1, 1), (1, 1), 0.0, 0.0, 0.0, (1, 1), (1, 1), (1, 1), (0, 0))


def image(array):
    return Item("image", np.asarray(array), SOURCE)


def raw(size, channels=1, **kw):
    return ImageEncode(size, channels, (0.0,) * channels, (1.0,) * channels, **kw)


def test_eight_bit_values_are_divided_by_255_and_normalised():
    a = np.arange(16, dtype=np.uint8).reshape(4, 4) * 17
    assert np.allclose(raw(4)(image(a), RNG)[0], a / 255, atol=1e-6)
    x = ImageEncode(4, 3)(image(a), RNG)
    assert np.allclose(x[2], (a / 255 - 0.406) / 0.225, atol=1e-5)  # ImageNet's blue


def test_window_maps_units_and_clips():
    a = np.array([[-1000.0, -160.0], [40.0, 3000.0]], np.float32)
    got = raw(2, window=(-160, 240))(image(a), RNG)[0]
    assert np.allclose(got, [[0, 0], [0.5, 1]])
    sixteen = np.array([[0, 1000], [2000, 4000]], np.uint16)
    assert np.allclose(raw(2, window=(0, 4000))(image(sixteen), RNG)[0], sixteen / 4000)


def test_auto_stretches_percentiles_of_what_is_not_eight_bit():
    a = np.linspace(5000, 9000, 100 * 100, dtype=np.float32).reshape(100, 100)
    a[0, 0] = 1e6  # one hot pixel
    got = raw(100)(image(a), RNG)[0]
    assert got.min() == 0
    assert got.max() == 1
    assert 0.4 < np.median(got) < 0.6
    assert np.array_equal(raw(2)(image(np.array([[True, False], [False, True]])), RNG)[0], [[1, 0], [0, 1]])


def test_colour_and_grey():
    rgb = np.zeros((2, 2, 3), np.uint8)
    rgb[..., 1] = 255
    assert np.allclose(raw(2)(image(rgb), RNG), 0.587, atol=1e-3)  # BT.601 green
    assert np.array_equal(raw(2, 3)(image(rgb), RNG)[:, 0, 0], [0, 1, 0])
    grey = raw(2, 3)(image(rgb[..., 1]), RNG)
    assert np.array_equal(grey[0], grey[1])
    rgba = np.concatenate([rgb, np.full((2, 2, 1), 7, np.uint8)], -1)
    assert np.array_equal(raw(2, 3)(image(rgba), RNG), raw(2, 3)(image(rgb), RNG))
    assert raw(2, 3)(image(rgb[..., :1]), RNG).shape == (3, 2, 2)


def test_pad_keeps_the_aspect_and_resize_does_not():
    a = np.full((20, 40), 255, np.uint8)
    padded = raw(32)(image(a), RNG)[0]
    assert padded[:8].max() == 0
    assert padded[8:24].min() == 1
    assert padded[24:].max() == 0
    assert raw(32, fit="resize")(image(a), RNG).min() == 1


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (np.full((4, 4), np.nan, np.float32), "image_nonfinite"),
        (np.zeros((4, 4, 7), np.uint8), "image_shape"),
        (np.zeros((0, 4), np.uint8), "image_shape"),
        (np.zeros(5, np.uint8), "image_shape"),
    ],
)
def test_what_is_no_image_is_refused_by_code(value, code):
    with pytest.raises(Refused) as error:
        raw(8)(image(value), RNG)
    assert error.value.code == code
    assert "'x'" in str(error.value)


def test_settings_that_cannot_be():
    for make in (
        lambda: ImageEncode(8, 2),
        lambda: ImageEncode(0),
        lambda: ImageEncode(8, 3, (0.5,)),
        lambda: ImageEncode(8, window=(5.0, 5.0)),
        lambda: MedicalImageAugment(area=(0.9, 0.6)),
        lambda: MedicalImageAugment(area=(0.5, 1.5)),
    ):
        with pytest.raises(UsageError):
            make()
    with pytest.raises(TypeError):
        raw(8)(Item("image", Absent.NOT_DONE, SOURCE), RNG)


def test_augmentation_without_amplitude_changes_nothing():
    a = np.random.default_rng(1).integers(0, 255, (64, 64), dtype=np.uint8)
    assert np.allclose(raw(64, augment=STILL)(image(a), RNG), raw(64)(image(a), RNG), atol=1e-6)


def test_the_affine_matrix_turns_flips_and_shifts():
    from PIL import Image

    a = np.random.default_rng(2).random((16, 16)).astype(np.float32)

    def warp(**kw):
        base = {"flip": False, "degrees": 0, "shift": (0, 0), "zoom": 1, "brightness": 1, "contrast": 1, "sigma": 0}
        matrix = Views(box=(0, 0, 16, 16), **{**base, **kw}).matrix(16, 16)
        return np.asarray(Image.fromarray(a).transform((16, 16), Image.Transform.AFFINE, matrix, 2))

    assert np.allclose(warp(), a)
    assert np.allclose(warp(flip=True), a[:, ::-1])
    assert np.allclose(warp(degrees=90), np.rot90(a, -1), atol=1e-5)
    assert np.allclose(warp(shift=(0.25, 0))[:, 4:], a[:, :-4], atol=1e-5)


def test_draws_stay_in_the_published_ranges():
    rng, augment = np.random.default_rng(3), MedicalImageAugment()
    draws = [augment.draw(rng, 100, 50) for _ in range(2000)]
    areas = np.array([(v.box[2] - v.box[0]) * (v.box[3] - v.box[1]) / 5000 for v in draws])
    assert areas.min() > 0.5  # 0.6 less what the border clips of a long crop
    assert areas.max() <= 1 + 1e-9
    assert abs(np.mean([v.flip for v in draws]) - 0.5) < 0.05
    for name, low, high in (
        ("degrees", -20, 20), ("zoom", 0.95, 1.05), ("brightness", 0.6, 1.4), ("contrast", 0.6, 1.4),
        ("sigma", 0.1, 3.0),
    ):  # fmt: skip
        values = np.array([getattr(v, name) for v in draws])
        assert low <= values.min()
        assert values.max() <= high
        assert values.std() > 0.25 * (high - low)  # uniform: 0.289
    assert max(abs(s) for v in draws for s in v.shift) <= 0.1


def test_blur_is_gaussian_inside_the_border():
    a = np.random.default_rng(4).random((2, 64, 64)).astype(np.float32)
    want = np.stack([gaussian_filter(c, 2.0, truncate=6) for c in a])
    assert np.allclose(blur(a, 2.0)[:, 14:-14, 14:-14], want[:, 14:-14, 14:-14], atol=1e-4)
    assert np.allclose(blur(np.ones((1, 8, 8), np.float32), 3.0), 1, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 70), st.integers(1, 70), st.sampled_from(["u1", "u2", "f4", "bool"]), st.sampled_from([1, 3]),
    st.sampled_from(["pad", "resize"]), st.booleans(), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_any_image_gives_finite_values_of_the_asked_shape_and_the_same_again(h, w, dtype, channels, fit, augment, seed):
    a = (np.random.default_rng(seed).random((h, w)) * 255).astype(dtype)
    encode = raw(24, channels, fit=fit, augment=MedicalImageAugment() if augment else None)
    x, y = (encode(image(a), np.random.default_rng(seed)) for _ in range(2))
    assert x.shape == encode.shape == (channels, 24, 24)
    assert x.dtype == np.float32
    assert np.isfinite(x).all()
    assert x.min() >= -1e-5
    assert x.max() <= 1 + 1e-5
    assert np.array_equal(x, y)


def test_json_round_trip_is_plain_and_equal():
    encode = ImageEncode(32, 1, window=(-160.0, 240.0), fit="resize", augment=MedicalImageAugment(flip=0.0))
    assert from_json(json.loads(json.dumps(encode.to_json()))) == encode
    assert encode.still().augment is None
    with pytest.raises(FabricaError, match="did you mean 'image'"):
        from_json({"type": "imge"})


def test_an_axial_slice_hangs_with_anterior_up_and_right_at_the_left():
    v = np.zeros((5, 6, 7), np.float32)
    v[4, 5, 3] = 1  # RAS: right-most, front-most, middle height
    assert axial(v, np.eye(4))[0, 0] == 1
    flipped = np.diag([-1.0, -1, 1, 1])  # the file runs to the left and the back
    assert axial(v[::-1, ::-1], flipped)[0, 0] == 1
    turned = np.transpose(v, (2, 0, 1))  # stored S, R, A
    affine = np.zeros((4, 4))
    affine[2, 0] = affine[0, 1] = affine[1, 2] = affine[3, 3] = 1
    assert axial(turned, affine)[0, 0] == 1
    item = Item("volume", v, SOURCE, affine=np.eye(4))
    assert raw(6, fit="resize", window=(0, 1))(item, RNG).shape == (1, 6, 6)
