"""Text burned into pictures: found, masked, or the picture refused. Unknown ultrasound and captures fail closed.

The default finder needs no model: small parts of strong contrast, of one height, in a row. With the extra `ocr`, a
`TextReader` of RapidOCR finds boxes as well. Ultrasound keeps what its own regions (0018,6011) cover.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import Refused, need
from fabrica.safe import LIMITS, Limits, check_array

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, x1 and y1 outside
TextReader = Callable[[NDArray[np.uint8]], list[Box]]  # (H, W) grey -> boxes of text

_CAPTURES = ("1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.104", "1.2.840.10008.5.1.1.29")
_ULTRASOUND = ("1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.6", "1.2.840.10008.5.1.4.1.1.3")
_RISKY = frozenset(["US", "IVUS", "OT", "SC", "ES", "XC", "GM", "HC", "DOC", "ECG", "XA", "RF"])


@dataclass(frozen=True, slots=True)
class Finding:
    """What was done to a picture: `boxes` masked; `checked`: it was looked at and holds no text that was found."""

    boxes: int = 0
    checked: bool = False


def clean_dicom(dataset: Dataset, mask: bool, reader: TextReader | None, limits: Limits = LIMITS) -> Finding:
    """Mask burned-in text of a data set in place, or refuse it.

    A picture is looked at when it says that it holds annotation, is ultrasound, a capture, or of a kind that often
    carries text. Refused: `ultrasound_unknown` (no regions, and no `reader` with `mask`), `secondary_capture`,
    `burned_in` (text found or declared and `mask` is off, or the picture cannot be decoded).
    """
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        return Finding()
    _spare_bits(dataset)
    sop, modality = str(dataset.get("SOPClassUID", "")), str(dataset.get("Modality", "")).upper()
    declared = str(dataset.get("BurnedInAnnotation", "")).upper()
    ultrasound = modality in ("US", "IVUS") or sop.startswith(_ULTRASOUND)
    capture = sop.startswith(_CAPTURES) or "ConversionType" in dataset or "SecondaryCaptureDeviceID" in dataset
    regions = _regions(dataset)
    if ultrasound and not regions and not (mask and reader):
        raise Refused("ultrasound_unknown", "an ultrasound picture does not say which of its regions hold the image")
    if capture and not (mask and reader) and not (ultrasound and regions):
        raise Refused("secondary_capture", "a captured screen may hold anything; mask it with a text reader (OCR)")
    if not (ultrasound or capture or declared == "YES" or modality in _RISKY or modality == ""):
        return Finding()
    if not mask and declared == "YES":
        raise Refused("burned_in", "the picture says that it holds burned-in annotation")
    return _mask(dataset, regions if ultrasound else [], mask, reader, limits)


def _spare_bits(dataset: Dataset) -> None:
    """Overlays once stood in the unused high bits of pixels: clear them, since their group is removed."""
    inside = [
        t for t in list(dataset.keys()) if t.group & 0xFF00 == 0x6000 and t.element == 0x0102 and dataset[t].value
    ]
    if not inside:
        return
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated or dataset.BitsAllocated != 16:
        raise Refused("burned_in", "an overlay stands inside compressed pixels")
    values = np.frombuffer(dataset.PixelData, "<u2" if dataset.original_encoding[1] else ">u2")
    high, stored = int(dataset.HighBit), int(dataset.BitsStored)
    keep = ((1 << stored) - 1) << (high + 1 - stored)
    cleared = (values & np.uint16(keep)).astype(values.dtype)
    if int(dataset.PixelRepresentation):  # the sign's copies above the stored bits are put back
        shift = 15 - high
        cleared = (cleared.astype(np.uint16) << shift).view(np.int16) >> shift
        cleared = cleared.astype("<i2" if dataset.original_encoding[1] else ">i2")
    dataset.PixelData = cleared.tobytes()


def _regions(dataset: Dataset) -> list[Box]:
    out = []
    for item in dataset.get("SequenceOfUltrasoundRegions") or ():
        names = ("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1")
        if all(name in item for name in names):
            x0, y0, x1, y1 = (int(item[name].value) for name in names)
            if 0 <= x0 < x1 and 0 <= y0 < y1:
                out.append((x0, y0, x1 + 1, y1 + 1))
    return out


def _mask(dataset: Dataset, regions: list[Box], mask: bool, reader: TextReader | None, limits: Limits) -> Finding:
    from pydicom.pixels.utils import pixel_array

    if "Rows" not in dataset or "Columns" not in dataset:
        raise Refused("burned_in", "the picture may hold text and does not say its size")
    frames, rows = int(dataset.get("NumberOfFrames", 1) or 1), int(dataset.Rows)
    columns, samples = int(dataset.Columns), int(dataset.get("SamplesPerPixel", 1))
    if int(dataset.BitsAllocated) not in (8, 16) or "PixelData" not in dataset:
        raise Refused("burned_in", "the picture may hold text and its samples are not of 8 or 16 bits")
    check_array((frames, rows, columns, samples), f"u{int(dataset.BitsAllocated) // 8}", limits, what="the picture")
    if dataset.file_meta.get("TransferSyntaxUID") is not None and dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        if not mask and not regions:
            found = _found(_pictures(np.asarray(pixel_array(dataset, raw=True)), frames, samples), [], reader)
            if found:
                raise Refused("burned_in", "text was found in the picture; ask for masking, or leave the file out")
            return Finding(0, True)
        dataset.decompress(as_rgb=False)
    array = np.asarray(pixel_array(dataset, raw=True)).reshape(
        (frames, rows, columns, samples) if samples > 1 else (frames, rows, columns)
    )
    outside = np.zeros((rows, columns), bool)
    if regions:
        outside[:] = True
        for x0, y0, x1, y1 in regions:
            outside[y0:y1, x0:x1] = False
    found = _found(_pictures(array, frames, samples), regions, reader)
    if found and not mask and not regions:
        raise Refused("burned_in", "text was found in the picture; ask for masking, or leave the file out")
    hidden = outside.copy()
    for x0, y0, x1, y1 in found:
        hidden[y0:y1, x0:x1] = True
    if hidden.any():
        _write(dataset, array, hidden)
    return Finding(len(found) + bool(regions), True)


def _pictures(array: NDArray[Any], frames: int, samples: int) -> list[NDArray[np.uint8]]:
    """Grey pictures to look for text in: of many frames at most eight, evenly, and their maximum."""
    array = array if samples == 1 else array.max(-1)
    array = array.reshape((frames, *array.shape[-2:]))
    chosen = array[np.unique(np.linspace(0, frames - 1, min(frames, 8)).astype(int))]
    looks = [*chosen] if frames == 1 else [*chosen, array.max(0), array.min(0)]
    return [to_grey(look) for look in looks]


def to_grey(picture: NDArray[Any]) -> NDArray[np.uint8]:
    """Any values (H, W) or (H, W, C) as 0-255 over their range."""
    values = picture.astype(np.float32)
    values = values.max(-1) if values.ndim == 3 else values
    low, high = float(values.min()), float(values.max())
    return ((values - low) * (255.0 / (high - low) if high > low else 0.0)).astype(np.uint8)


def _found(pictures: list[NDArray[np.uint8]], regions: list[Box], reader: TextReader | None) -> list[Box]:
    boxes: set[Box] = set()
    for picture in pictures:
        boxes.update(find_text(picture))
        if reader is not None:
            boxes.update(reader(picture))
    inside = [b for b in boxes if not regions or any(_meets(b, r) for r in regions)]
    return sorted(inside)


def _meets(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _write(dataset: Dataset, array: NDArray[Any], hidden: NDArray[np.bool_]) -> None:
    """The picture with the hidden pixels black, native and interleaved."""
    out = array.copy()
    photometric = str(dataset.PhotometricInterpretation)
    if photometric.startswith("YBR"):
        half = 1 << (int(dataset.BitsStored) - 1)
        out[:, hidden] = np.array([0, half, half], out.dtype)
    else:
        out[:, hidden] = int(out.max()) if photometric == "MONOCHROME1" else int(out.min()) if out.ndim == 3 else 0
    if photometric.startswith("YBR_FULL_422"):
        dataset.PhotometricInterpretation = "YBR_FULL"
    if "PlanarConfiguration" in dataset:
        dataset.PlanarConfiguration = 0
    data = out.tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OW" if int(dataset.BitsAllocated) == 16 else "OB"


# ---------------------------------------------------------------- finding text


def find_text(picture: NDArray[np.uint8]) -> list[Box]:
    """Boxes of text-like rows in a grey picture (H, W): three or more thin strokes of strong contrast and like height,
    side by side. Letters are brighter or darker than what surrounds them.

    >>> find_text(np.zeros((64, 64), np.uint8))
    []
    """
    out: list[Box] = []
    for image in (picture, 255 - picture):
        out += _rows(_letters(image))
    return _joined(out)


def _letters(image: NDArray[np.uint8]) -> list[Box]:
    from scipy import ndimage

    blurred = ndimage.grey_opening(image, size=(9, 9))  # strokes are thinner than 9 pixels
    top = image.astype(np.int16) - blurred
    noise = 2.5 * float(np.percentile(top, 75))  # speckle and grain everywhere are no letters
    strong = top > max(40.0, 0.35 * int(image.max()), noise)
    labels, count = ndimage.label(strong, structure=np.ones((3, 3)))
    if count == 0 or count > 20000:
        return []
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    out = []
    for n, place in enumerate(ndimage.find_objects(labels), start=1):
        if place is None:
            continue
        ys, xs = place
        height, width = ys.stop - ys.start, xs.stop - xs.start
        if (
            5 <= height <= 80
            and 1 <= width <= 3 * height
            and 0.12 <= sizes[n] / (height * width) <= 1.0
            and sizes[n] >= 5
        ):
            out.append((xs.start, ys.start, xs.stop, ys.stop))
    return out


def _rows(letters: list[Box]) -> list[Box]:
    """Boxes around rows of letters."""
    out: list[Box] = []
    left = sorted(letters)
    used = [False] * len(left)
    for i, first in enumerate(left):
        if used[i]:
            continue
        row, members = first, [i]
        height = first[3] - first[1]
        for j in range(i + 1, len(left)):
            box = left[j]
            if box[0] - row[2] > 2.0 * height:
                break
            overlap = min(row[3], box[3]) - max(row[1], box[1])
            h = box[3] - box[1]
            if (
                used[j]
                or overlap < 0.5 * min(height, h)
                or not 0.4 <= h / height <= 2.5
                or box[0] - row[2] > 1.6 * height
            ):
                continue
            row = (row[0], min(row[1], box[1]), max(row[2], box[2]), max(row[3], box[3]))
            members.append(j)
        if len(members) >= 3 and row[2] - row[0] >= 1.2 * (row[3] - row[1]):
            for j in members:
                used[j] = True
            pad = max(2, (row[3] - row[1]) // 3)
            out.append((max(0, row[0] - 2 * pad), max(0, row[1] - pad), row[2] + 2 * pad, row[3] + pad))
    return out


def _joined(boxes: list[Box]) -> list[Box]:
    out: list[Box] = []
    for box in sorted(boxes):
        for i, other in enumerate(out):
            if _meets(box, other):
                out[i] = (
                    min(box[0], other[0]), min(box[1], other[1]), max(box[2], other[2]), max(box[3], other[3])
                )  # fmt: skip
                break
        else:
            out.append(box)
    return out


class OcrReader:
    """Boxes by RapidOCR's detector, whose models come in its package (extra `ocr`); no download."""

    name, version = "rapidocr", "1"

    def __init__(self) -> None:
        rapidocr: Any = need("rapidocr", "ocr")
        self._engine = rapidocr.RapidOCR(params={"Global.log_level": "error"})

    def __reduce__(self) -> tuple[object, ...]:
        return OcrReader, ()

    def __call__(self, picture: NDArray[np.uint8], /) -> list[Box]:
        """Boxes of text in a grey picture (H, W)."""
        found = self._engine(np.repeat(picture[..., None], 3, axis=2), use_cls=False, use_rec=False)
        boxes = getattr(found, "boxes", None)
        out: list[Box] = []
        for quad in boxes if boxes is not None else ():
            points = np.asarray(quad)
            (x0, y0), (x1, y1) = np.floor(points.min(0)), np.ceil(points.max(0))
            out.append((max(0, int(x0) - 2), max(0, int(y0) - 2), int(x1) + 2, int(y1) + 2))
        return out
