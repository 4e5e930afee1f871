"""Flat pictures of the phantom hospital: chest X-ray, ultrasound, histopathology, fundus, each with its truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.phantom.draw import Mask, blob, oval, radius, smooth, step, streams, unit
from fabrica.phantom.patients import Finding, Patient
from fabrica.phantom.shapes import F32, f32

Drawn = tuple[F32, list[Mask]]


def _rgb(*levels: float) -> F32:
    return np.asarray(levels, np.float32)


def _mix(image: F32, cover: F32, colour: F32) -> F32:
    return image + cover[..., None] * (colour - image)


# ---------------------------------------------------------------- chest X-ray


def xray(patient: Patient, found: Sequence[Finding], rng: np.random.Generator, size: int) -> Drawn:
    """A frontal chest film (size, size): lungs, ribs, heart, diaphragm. Sides are the patient's own."""
    v, u = unit(size)
    rng, own = streams(rng, "xray")
    wide, tall, lean = 1 + 0.06 * rng.normal(), 0.31 + 0.012 * rng.normal(), 0.05 * rng.normal()
    t = u + lean * (v - 0.5)  # the patient stands a little askew
    lung = np.maximum(oval(v, t, 0.47, 0.29, tall, 0.16 * wide), oval(v, t, 0.47, 0.71, tall, 0.16 * wide))
    lung *= step(0.76 + 0.03 * np.cos(4 * np.pi * (u - 0.29)) - v, 0.02)
    image = 0.62 - 0.5 * (u - 0.5) ** 2 + 0.12 * (v - 0.5) + 0.02 * smooth((size, size), size / 16, rng)
    image = image - lung * (0.4 + 0.035 * smooth((size, size), size / 40, rng))
    ribs = np.cos(2 * np.pi * (v - 0.35 * np.abs(u - 0.5) ** 1.5 * 2 - 0.02 * rng.normal()) / 0.085)
    image += 0.05 * np.clip(ribs, 0, 1) * oval(v, u, 0.47, 0.5, 0.4, 0.46, 0.1)
    image += 0.2 * step(0.045 - np.abs(u - 0.5), 0.04) + 0.1 * step(v - 0.2 * np.abs(u - 0.5) - 0.78, 0.1)
    grade = {f.label: f.severity for f in found}
    big = 0.06 + 0.05 * grade["cardiomegaly"] if "cardiomegaly" in grade else 0.0
    heart = oval(v, u, 0.64, 0.545 + big / 4, 0.125 + big / 3, 0.125 + big, 0.05)
    image += (0.66 - image) * heart * 0.9
    masks: list[Mask] = []
    for f in found:
        r, rng = radius(f, "xray"), own[f.label]
        if f.label == "cardiomegaly":
            masks.append(heart > 0.5)
            continue
        if f.label == "effusion":
            side = 0.71 if f.side == "left" else 0.29
            level = 0.70 - 0.14 * f.severity - 0.5 * np.clip((u - side) * (1 if side > 0.5 else -1), 0, 1)
            cover = lung * step(v - level, 0.07)
            image += (0.66 - image) * cover
        elif f.label == "cavity":
            outer, inner = blob(v, u, f, r, rng), blob(v, u, f, 0.6 * r, rng, rough=0.05)
            cover = np.clip(outer - inner, 0, 1)
            image += (0.15 + 0.11 * f.severity) * cover - 0.05 * inner
        elif f.label == "atelectasis":
            tilt = rng.uniform(-0.35, 0.35)
            du, dv = u - f.x, v - f.y
            across, along = dv * np.cos(tilt) - du * np.sin(tilt), du * np.cos(tilt) + dv * np.sin(tilt)
            cover = step(0.012 - np.abs(across), 0.012) * step(r - np.abs(along), 0.03)
            image += (0.13 + 0.1 * f.severity) * cover
        elif f.label == "consolidation":
            cover = blob(v, u, f, r, rng, rough=0.25, soft=0.07)
            image += cover * lung * (0.22 + 0.05 * smooth((size, size), size / 40, rng))
        else:
            cover = blob(v, u, f, r, rng, rough=0.06, soft=0.02)
            image += (0.15 + 0.12 * f.severity) * cover
        masks.append(cover > 0.5)
    return image, masks


# ---------------------------------------------------------------- ultrasound


def ultrasound(patient: Patient, found: Sequence[Finding], rng: np.random.Generator, size: int) -> Drawn:
    """A curved-array sector (size, size) of a liver-like organ: speckle, attenuation, shadow and enhancement."""
    v, u = unit(size)
    rng, own = streams(rng, "ultrasound")
    angle, depth = np.arctan2(u - 0.5, v + 0.18), np.hypot(u - 0.5, v + 0.18)
    sector = ((np.abs(angle) < 0.66) & (depth > 0.24) & (depth < 1.12)).astype(np.float32)
    organ = oval(v, u, 0.56, 0.5 + 0.03 * rng.normal(), 0.34, 0.4, 0.03)
    echo = 0.32 + 0.13 * organ + 0.05 * smooth((size, size), size / 12, rng)
    capsule = np.exp(-(((np.hypot((v - 0.56) / 0.34, (u - 0.5) / 0.4) - 1) / 0.03) ** 2))
    echo = echo + 0.3 * capsule + 0.35 * np.exp(-(((depth - 0.27) / 0.015) ** 2))
    for _ in range(3):  # vessels of the organ: dark tubes
        a, c = rng.uniform(-0.6, 0.6), rng.uniform(0.4, 0.7)
        tube = step(0.009 - np.abs(v - c - a * (u - 0.5) - 0.03 * np.sin(9 * u + c * 20)), 0.01)
        echo = echo * (1 - 0.5 * tube * organ)
    speckle = np.hypot(smooth((size, size), size / 150, rng), smooth((size, size), size / 150, rng)) * 0.8
    masks: list[Mask] = []
    for f in found:
        r, rng = radius(f, "ultrasound"), own[f.label]
        here, far = np.arctan2(f.x - 0.5, f.y + 0.18), np.hypot(f.x - 0.5, f.y + 0.18)
        behind = step(r / far - np.abs(angle - here), 0.03) * step(depth - far, 0.03)
        if f.label == "cyst":
            cover = blob(v, u, f, r, rng, rough=0.04)
            echo = echo * (1 + 0.55 * behind) * (1 - 0.93 * cover)
        elif f.label == "mass":
            cover = blob(v, u, f, r, rng, rough=0.3, soft=0.03)
            echo = echo * (1 - 0.55 * cover * (1 + 0.2 * smooth((size, size), size / 40, rng)))
        elif f.label == "calculus":
            cover = blob(v, u, f, r, rng, rough=0.1)
            echo = echo * (1 - 0.85 * behind) + 0.9 * cover
        elif f.label == "haemangioma":
            cover = blob(v, u, f, r, rng, rough=0.08, soft=0.02)
            echo = echo * (1 + 0.9 * cover)
        else:  # free fluid: a dark crescent under the organ
            rim = np.hypot((v - 0.56) / 0.34, (u - 0.5) / 0.4)
            cover = step(rim - 1.04, 0.03) * step(1.16 + 0.14 * f.severity - rim, 0.03) * step(v - 0.6, 0.06)
            echo = echo * (1 - 0.93 * cover)
        masks.append((cover > 0.5) & (sector > 0))
    image = np.clip(echo, 0, 2) * (0.3 + 0.7 * speckle) * np.exp(-0.5 * (depth - 0.24)) * sector
    return np.float32(1.15) * image.astype(np.float32), masks


# ---------------------------------------------------------------- histopathology


def _nuclei(image: F32, spots: F32, colour: F32) -> None:
    """Stamp nuclei in place: rows of `spots` are v, u, radius, elongation, angle, strength."""
    size = len(image)
    for cv, cu, r, stretch, angle, strength in spots.tolist():
        reach = int(r * stretch * size) + 2
        y, x = int(cv * size), int(cu * size)
        ys, xs = slice(max(0, y - reach), y + reach + 1), slice(max(0, x - reach), x + reach + 1)
        gy, gx = np.mgrid[ys, xs][:, : size - ys.start, : size - xs.start]
        dv, du = (gy + 0.5) / size - cv, (gx + 0.5) / size - cu
        a, b = du * np.cos(angle) + dv * np.sin(angle), dv * np.cos(angle) - du * np.sin(angle)
        cover = step(r - np.hypot(a / stretch, b), 1.2 / size) * strength
        image[ys, xs] += cover[..., None] * (colour - image[ys, xs])


def _spots(n: int, f: Finding | None, r: float, rng: np.random.Generator, *, size: float, stretch: float = 1.4) -> F32:
    """`n` nuclei of radius about `size`: over the whole picture, or inside the finding's disc of radius `r`."""
    if f is None:
        v, u = rng.random((2, n))
    else:
        rho, theta = r * np.sqrt(rng.random(n)), rng.uniform(0, 2 * np.pi, n)
        v, u = f.y + rho * np.sin(theta), f.x + rho * np.cos(theta)
    inside = (v > 0) & (v < 1) & (u > 0) & (u < 1)
    rest = (
        size * rng.uniform(0.75, 1.3, n),
        rng.uniform(1, stretch, n),
        rng.uniform(0, np.pi, n),
        rng.uniform(0.6, 0.95, n),
    )
    return f32(np.stack([v, u, *rest], 1)[inside])


def pathology(patient: Patient, found: Sequence[Finding], rng: np.random.Generator, size: int) -> Drawn:
    """A haematoxylin and eosin field (size, size, 3): stroma, nuclei, a few glands."""
    v, u = unit(size)
    rng, own = streams(rng, "pathology")
    pink, purple, white = _rgb(0.91, 0.68, 0.79), _rgb(0.36, 0.22, 0.52), _rgb(0.97, 0.95, 0.96)
    fibre = np.sin(40 * (u + 0.3 * v) + 2.5 * smooth((size, size), size / 8, rng))
    grain = smooth((size, size), size / 60, rng)
    image = pink + fibre[..., None] * _rgb(0.015, 0.035, 0.025) + grain[..., None] * _rgb(0.012, 0.03, 0.02)
    spots, keep = _spots(110, None, 0, rng, size=0.012), rng.random(110)
    tint = 1 + 0.04 * rng.standard_normal(3)
    clear = np.zeros((size, size), np.float32)  # where the usual nuclei do not lie
    masks: list[Mask] = []
    covers = [blob(v, u, f, radius(f, "pathology"), own[f.label], rough=0.2, soft=0.04) for f in found]
    for f, cover in zip(found, covers, strict=True):
        masks.append(cover > 0.5)
        rng = own[f.label]
        if f.label == "carcinoma":
            image = _mix(image, 0.4 * cover, _rgb(0.68, 0.46, 0.68))
        elif f.label == "necrosis":
            image = _mix(image, 0.75 * cover, _rgb(0.88, 0.56, 0.66) + 0.04 * smooth((size, size), 1, rng)[..., None])
            clear = np.maximum(clear, cover)
        elif f.label == "fibrosis":
            bands = 0.5 + 0.5 * np.sin(95 * (v - 0.4 * u) + 1.5 * smooth((size, size), size / 10, rng))
            image = _mix(image, cover * (0.35 + 0.4 * bands), _rgb(0.86, 0.42, 0.62))
            clear = np.maximum(clear, 0.8 * cover)
    at = tuple((spots[:, :2] * size).astype(int).T)
    _nuclei(image, spots[keep >= clear[at]], purple)
    for f in found:
        r, rng = radius(f, "pathology"), own[f.label]
        if f.label == "carcinoma":
            _nuclei(
                image,
                _spots(int((800 + 1200 * f.severity) * r * r) + 16, f, r, rng, size=0.02, stretch=1.6),
                purple * 0.8,
            )
        elif f.label == "inflammation":
            _nuclei(
                image,
                _spots(int((3000 + 3000 * f.severity) * r * r) + 20, f, r, rng, size=0.009, stretch=1.1),
                purple * 0.7,
            )
        elif f.label == "steatosis":
            _nuclei(image, _spots(int(1100 * r * r) + 8, f, 0.9 * r, rng, size=0.026, stretch=1.1), white)
    return (image * tint).astype(np.float32), masks


# ---------------------------------------------------------------- fundus


def fundus(patient: Patient, found: Sequence[Finding], rng: np.random.Generator, size: int) -> Drawn:
    """A colour photograph of the retina (size, size, 3), darker for a darker skin. Sides of the picture."""
    v, u = unit(size)
    rng, own = streams(rng, "fundus")
    flip = 1 if rng.random() < 0.5 else -1  # right or left eye
    s = flip * (u - 0.5)  # the optic disc lies at s = 0.3
    rho = np.hypot(v - 0.5, u - 0.5)
    tone = (patient.skin_tone - 1) / 9
    base = _rgb(0.80, 0.40, 0.20) * (1 - 0.4 * tone) + _rgb(0.02, 0.0, 0.02)
    image = base * (1.05 - 1.2 * rho**2)[..., None] * (1 + 0.03 * smooth((size, size), size / 20, rng))[..., None]
    image = _mix(image, 0.45 * np.exp(-((np.hypot(v - 0.52, s + 0.03) / 0.07) ** 2)), base * 0.55)  # macula
    vessels = np.zeros((size, size), np.float32)
    for sign in (-1, 1):
        for reach, width in ((0.2, 0.010), (0.36, 0.008), (0.1, 0.006)):
            reach *= 1 + 0.12 * rng.normal()
            line = 0.5 + sign * reach * np.sqrt(np.clip((0.31 - s) / 0.6, 0, None)) + 0.01 * np.sin(25 * s + 9 * reach)
            vessels = np.maximum(vessels, step(width - np.abs(v - line), 0.008) * step(0.31 - s, 0.01))
        vessels = np.maximum(
            vessels, step(0.007 - np.abs(v - 0.5 - sign * (0.3 + 1.1 * (s - 0.2))), 0.008) * step(s - 0.3, 0.01) * 0.8
        )
    image = _mix(image, 0.75 * vessels, base * _rgb(0.5, 0.28, 0.3))
    grade = {f.label: f.severity for f in found}
    usual = 0.33 + 0.05 * rng.random()
    ratio = 0.68 + 0.17 * grade["cupping"] if "cupping" in grade else usual
    disc = oval(v, s, 0.5, 0.3, 0.085, 0.072, 0.015)
    image = _mix(image, 0.85 * disc, _rgb(0.95, 0.68, 0.42) * (1 - 0.15 * tone))
    image = _mix(image, oval(v, s, 0.5, 0.3, 0.085 * ratio, 0.072 * ratio, 0.012), _rgb(0.99, 0.90, 0.72))
    masks: list[Mask] = []
    for f in found:
        image, cover = _lesion(image, f, disc, s, base, own[f.label])
        masks.append((cover > 0.5) & (rho < 0.485))
    return image * step(0.485 - rho, 0.01)[..., None], masks


def _dots(v: F32, u: F32, spots: NDArray[Any], soft: float) -> F32:
    """Coverage of discs given as rows of v, u, radius."""
    cover = np.zeros(v.shape, np.float32)
    for cv, cu, r in spots.tolist():
        cover = np.maximum(cover, step(r - np.hypot(v - cv, u - cu), soft))
    return cover


def _lesion(image: F32, f: Finding, disc: F32, s: F32, base: F32, rng: np.random.Generator) -> tuple[F32, F32]:
    size = len(image)
    v, u = unit(size)
    r = radius(f, "fundus")
    theta = np.arange(0, 2 * np.pi, 0.45) + rng.uniform(0, 1)
    if f.label == "cupping":
        return image, disc
    if f.label == "cotton_wool_spot":
        cover = blob(v, u, f, r, rng, rough=0.2, soft=0.06)
        return _mix(image, (0.4 + 0.35 * f.severity) * cover, _rgb(0.95, 0.88, 0.74)), cover
    if f.label == "drusen":
        n, lift = int(14 + 14 * f.severity), 0.09 * np.sqrt(rng.random(28))
        turn = rng.uniform(0, 2 * np.pi, 28)
        at = np.stack([0.52 + lift * np.sin(turn), -0.03 + lift * np.cos(turn), rng.uniform(0.006, 0.011, 28)], 1)
        cover = _dots(v, s, at[:n], 0.012)
        return _mix(image, 0.7 * cover, _rgb(0.93, 0.80, 0.42)), cover
    if f.label == "exudate":
        wobble = r * 0.8 * rng.uniform(0.8, 1.15, len(theta))
        at = np.stack(
            [f.y + wobble * np.sin(theta), f.x + wobble * np.cos(theta), rng.uniform(0.009, 0.018, len(theta))], 1
        )
        cover = _dots(v, u, at, 0.008)
        return _mix(image, 0.9 * cover, _rgb(0.98, 0.88, 0.45)), cover
    n = 3 + int(3 * f.severity)  # haemorrhages: dark blots
    away = r * np.sqrt(rng.random(n))
    turn = rng.uniform(0, 2 * np.pi, n)
    at = np.stack([f.y + away * np.sin(turn), f.x + away * np.cos(turn), rng.uniform(0.016, 0.034, n)], 1)
    cover = _dots(v, u, at, 0.015)
    return _mix(image, 0.85 * cover, base * _rgb(0.38, 0.16, 0.2)), cover
