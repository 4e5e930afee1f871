"""Pictures: depth, colour, alpha, frames, masks, orientation against the arrays they were written from."""

import io

import numpy as np
import pytest
from PIL import Image

import made_files as made
from fabrica.errors import Refused
from fabrica.safe import LIMITS
from fabrica.sources import Quarantined, Ref, read, walk
from fabrica.sources.image import decode

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 255, (6, 9)).astype(np.uint8)
DEEP = RNG.integers(0, 65535, (6, 9)).astype(np.uint16)
RGB = RNG.integers(0, 255, (6, 9, 3)).astype(np.uint8)


def saved(picture, form, **options):
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    ("array", "form"),
    [(GREY, "PNG"), (DEEP, "PNG"), (RGB, "PNG"), (GREY, "TIFF"), (DEEP, "TIFF"), (RGB, "TIFF"), (GREY, "BMP"),
     (RGB, "BMP"), (GREY, "GIF"), (GREY, "JPEG2000"), (DEEP.astype(np.float32), "TIFF"),
     (DEEP.astype(np.int32), "TIFF")],
)  # fmt: skip
def test_lossless_pictures_come_back_as_they_were(array, form):
    found, steps = decode(saved(Image.fromarray(array), form))
    assert (found.dtype, steps) == (array.dtype, ())
    np.testing.assert_array_equal(found, array)


def test_16_bit_colour_tiff_keeps_its_depth_through_tifffile():
    tifffile = pytest.importorskip("tifffile")
    out = io.BytesIO()
    deep = RNG.integers(0, 65535, (6, 9, 3)).astype(np.uint16)
    tifffile.imwrite(out, deep, photometric="rgb")
    found, steps = decode(out.getvalue())
    np.testing.assert_array_equal(found, deep)
    assert steps == ("tifffile",)
    png = pytest.importorskip("imagecodecs").png_encode(deep)
    np.testing.assert_array_equal(decode(png)[0], deep)


def test_palette_becomes_colour_and_keeps_its_indices_for_masks():
    picture = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "L").convert("P")
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    data = saved(picture, "PNG")
    np.testing.assert_array_equal(decode(data)[0][0, 0], [10, 20, 30])
    np.testing.assert_array_equal(decode(data, indices=True)[0], [[0, 1], [2, 1]])


def test_one_bit_and_alpha():
    bits = GREY > 100
    np.testing.assert_array_equal(decode(saved(Image.fromarray(bits), "PNG"))[0], bits * np.uint8(255))
    full = np.dstack([RGB, np.full((6, 9), 255, np.uint8)])
    found, steps = decode(saved(Image.fromarray(full), "PNG"))
    np.testing.assert_array_equal(found, RGB)
    assert steps == ()
    half = full.copy()
    half[..., 3] = 0
    found, steps = decode(saved(Image.fromarray(half), "PNG"))
    assert (found == 255).all()
    assert steps == ("alpha_over_white",)


def test_jpeg_is_upright_by_its_exif():
    tall = np.zeros((16, 8), np.uint8)
    tall[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the top of the scene is at the right of the stored picture
    found, steps = decode(saved(Image.fromarray(tall), "JPEG", exif=exif, quality=95))
    assert found.shape == (8, 16)
    assert found[:, 12:].mean() > 250 > 5 > found[:, :8].mean()
    assert steps == ("exif_upright",)


def test_frames_of_one_size_are_a_video_and_a_pyramid_is_its_first_page(tmp_path):
    pages = [Image.fromarray(RNG.integers(0, 255, (6, 9)).astype(np.uint8)) for _ in range(3)]
    data = saved(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    (tmp_path / "stack.tif").write_bytes(data)
    (record,) = read(Ref(tmp_path / "stack.tif", "stack.tif", "s"))
    np.testing.assert_array_equal(record.first("video").array(), np.stack([np.asarray(p) for p in pages]))
    small = pages[0].resize((4, 3))
    found, steps = decode(saved(pages[0], "TIFF", save_all=True, append_images=[small]))
    assert (found.shape, steps) == ((6, 9), ("first_page",))


def test_a_record_of_a_picture_has_what_the_columns_say(tmp_path):
    (tmp_path / "p7_left.png").write_bytes(saved(Image.fromarray(GREY), "PNG"))
    columns = {"modality": "fundus", "subject": r"re:^(p\d+)_", "group:side": r"re:_(left|right)", "label:dr": "1"}
    (ref,) = walk(tmp_path, source="s", licence="CC0-1.0", columns=columns)
    (record,) = read(ref)
    assert record.groups == {"modality": "fundus", "side": "left"}
    assert record.labels == {"dr": 1.0}
    assert record.first("image").origin.licence == record.rights.licence == "CC0-1.0"


@pytest.mark.parametrize(
    ("mask", "form", "want"),
    [
        (np.where(GREY > 128, 255, 0).astype(np.uint8), "GIF", {"vessel": GREY > 128}),
        (np.where(GREY > 128, 251, 4).astype(np.uint8), "PNG", {"vessel": GREY > 128}),  # grey borders of a lossy mask
        ((GREY % 4).astype(np.uint8), "PNG", {str(v): v == GREY % 4 for v in (1, 2, 3)}),
        (np.zeros((6, 9), np.uint8), "PNG", {"vessel": np.zeros((6, 9), bool)}),
    ],
)
def test_masks_beside_a_picture_are_regions(tmp_path, mask, form, want):
    (tmp_path / "a.png").write_bytes(saved(Image.fromarray(RGB), "PNG"))
    name = f"a_mask.{form.lower()}"
    (tmp_path / name).write_bytes(saved(Image.fromarray(mask), form))
    columns = {"mask": "{stem}_mask." + form.lower(), "mask_label": "vessel"}
    (ref,) = walk(tmp_path, source="s", columns=columns)
    (record,) = read(ref)
    got = {r.label: r.data for r in record.regions}
    assert got.keys() == want.keys()
    for label, data in want.items():
        np.testing.assert_array_equal(got[label], data)


@pytest.mark.real_data
def test_drive_and_kvasir_pictures_with_their_masks(shared_data):
    root = shared_data("drive_fundus") / "DRIVE" / "training"
    for ref in walk(root / "images", source="drive", columns={"mask": "../mask/{stem}_mask.gif"}):
        (record,) = read(ref)
        assert record.first("image").array().shape == (584, 565, 3)
        assert 0.6 < record.regions[0].data.mean() < 0.75  # the field of view is a disc
    kvasir = shared_data("kvasir_seg_few") / "Kvasir-SEG"
    refs = list(walk(kvasir, source="kvasir", columns={"mask": "../masks/{name}", "mask_label": "polyp"}))
    found = [record for ref in refs if ref.key.startswith("images") for record in read(ref)]
    assert len(found) == 5
    assert all(0.01 < r.regions[0].data.mean() < 0.7 and r.regions[0].label == "polyp" for r in found)


# ---------------------------------------------------------------- hostile


def code(data, limits=LIMITS):
    with pytest.raises(Refused) as error:
        decode(data, limits)
    return error.value.code


def test_pictures_that_claim_too_much_are_refused_by_code():
    gif = b"GIF89a" + (65535).to_bytes(2, "little") * 2 + b"\0\0\0"
    assert code(made.png(60_000, 60_000)) == "too_many_pixels"
    assert code(gif + b"\x2c" + bytes(4) + b"\xff\xff\xff\xff\0\x02\0\x3b") == "too_many_pixels"
    jpeg = bytearray(saved(Image.fromarray(GREY), "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = b"\xff\xdc\xff\xdc"
    assert code(bytes(jpeg)) == "too_many_pixels"
    assert code(made.png_of_zeros(12_000, 12_000)) == "ratio"
    assert code(made.png(12_500, 12_500, colour=6)) == "array_too_large"


def test_a_film_of_endless_frames_is_refused(monkeypatch):
    from fabrica.sources import image

    frame = Image.fromarray(GREY)
    film = saved(frame, "TIFF", save_all=True, append_images=[frame] * 30)
    assert decode(film)[0].shape == (31, 6, 9)
    monkeypatch.setattr(image, "_MOST_FRAMES", 20)
    assert code(film) == "too_many_frames"


def test_a_jpeg_of_a_thousand_scans_is_refused():
    assert code(saved(Image.fromarray(GREY), "JPEG", progressive=True) + b"\xff\xda" * 1000) == "jpeg_scans"


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "GIF", "BMP", "JPEG2000"])
def test_cut_and_damaged_pictures_are_refused_or_read(tmp_path, form):
    import random

    data = saved(Image.fromarray(RGB if form != "GIF" else GREY).resize((90, 60)), form)
    assert code(data[: len(data) // 3]) == "image_broken"
    for n in range(60):
        (tmp_path / "x.png").write_bytes(made.mutate(data, random.Random(n)))
        for found in read(Ref(tmp_path / "x.png", "x", "s")):
            assert not isinstance(found, Quarantined) or found.code not in ("undecodable", "file")
