"""Volumes of the phantom hospital: chest CT in Hounsfield units and brain MR, each with its truth in 3-D."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.phantom.draw import Mask, oval, smooth, step, streams, unit
from fabrica.phantom.findings import FIELD_MM
from fabrica.phantom.patients import Finding, Patient
from fabrica.phantom.shapes import F32, f32

Pair = tuple[NDArray[Any], NDArray[Any]]  # an image with a finding in it, and where
Drawn = tuple[F32, list[Mask]]
SLICES = {"ct": 12, "mr": 12}
THICKNESS_MM = {"ct": 8.0, "mr": 7.0}


def _plan(f: Finding, modality: str, rng: np.random.Generator) -> tuple[list[float], list[float], F32]:
    """The finding's radius in each slice (share of the width; a ball whose centre lies near the middle slice), the
    phases of its outline, and places of scattered foci (9, 3) within -1 to 1."""
    slices, thick = SLICES[modality], THICKNESS_MM[modality]
    middle = (slices - 1) / 2 + rng.uniform(-0.6, 0.6)
    r = max(f.size_mm / 2, 1.2 * thick)  # in z at least, so that the middle slices always cut it
    radii = []
    for z in range(slices):
        cut = 1 - ((z - middle) * thick / r) ** 2
        radii.append(f.size_mm / 2 / FIELD_MM[modality] * cut**0.5 if cut > 0 else 0.0)
    return radii, rng.uniform(0, 2 * np.pi, 3).tolist(), f32(rng.uniform(-1, 1, (9, 3)))


def _ball(v: F32, u: F32, f: Finding, r: float, phases: Sequence[float], rough: float, soft: float) -> F32:
    """One slice of an irregular ball, its outline the same in every slice."""
    if r <= 0:
        return np.zeros(v.shape, np.float32)
    dv, du = v - np.float32(f.y), u - np.float32(f.x)
    angle = np.arctan2(dv, du)
    edge = 1 + sum(rough / k * np.cos(k * angle + p) for k, p in zip((2, 3, 5), phases, strict=True))
    return step(r * edge - np.hypot(dv, du), soft)


def ct(patient: Patient, found: Sequence[Finding], rng: np.random.Generator, size: int) -> Drawn:
    """Axial chest CT (12, size, size) in HU, from the diaphragm up; rows run to the back, columns to the patient's
    left (feet-first order of slices: z grows towards the head)."""
    v, u = unit(size)
    rng, own = streams(rng, "ct")
    n = SLICES["ct"]
    plans = [(f, *_plan(f, "ct", own[f.label])) for f in found]
    wave = smooth((n, size, size), size / 45, rng)
    texture = smooth((n, size, size), size / 20, rng)
    wide = 1 + 0.03 * rng.normal()
    volume = np.empty((n, size, size), np.float32)
    masks = [np.zeros((n, size, size), bool) for _ in found]
    body, muscle = oval(v, u, 0.52, 0.5, 0.36, 0.46 * wide), oval(v, u, 0.52, 0.5, 0.33, 0.43 * wide)
    fan = np.arctan2(v - 0.52, (u - 0.5) / 1.3)
    ring = np.abs(np.hypot((v - 0.52) / 0.305, (u - 0.5) / (0.405 * wide)) - 1) * 0.35
    for z in range(n):
        grow = 0.9 + 0.2 * np.sin(np.pi * (z + 0.5) / n)
        lungs = [oval(v, u, 0.5, x, 0.235 * grow, 0.15 * grow, 0.012) for x in (0.29, 0.71)]
        lung = np.maximum(*lungs)
        hu = -1000 + 910 * body + (130 + 12 * texture[z]) * muscle
        ribs = step(0.014 - ring, 0.008) * step(np.cos(9 * fan + 1.3 * z) - 0.55, 0.2)
        hu += 420 * ribs + (380 - 30 * wave[z]) * oval(v, u, 0.775, 0.5, 0.055, 0.06)
        hu = hu + (-870 + 45 * np.clip(wave[z], -1, 1) - hu) * lung
        hu += 480 * lung * step(wave[z] - 1.9, 0.6)  # vessels
        heart = oval(v, u, 0.43, 0.54, 0.12 * grow, 0.13 * (1.4 - 0.7 * z / n), 0.012)
        hu = hu + (45 + 8 * texture[z] - hu) * heart
        hu += 120 * oval(v, u, 0.66, 0.55, 0.035, 0.035, 0.01)  # aorta with contrast
        for (f, radii, phases, _), mask in zip(plans, masks, strict=True):
            inside = lungs[1] if f.side == "left" else lungs[0]
            hu, cover = _ct_finding(hu, f, radii[z], phases, inside, texture[z])
            mask[z] = cover > 0.5
        hu += 700 * step(0.008 - np.abs(v - 0.93 - 0.12 * (u - 0.5) ** 2), 0.006)  # the table
        volume[z] = hu
    noise = 22 if patient.scanner in ("alpha", "beta") else 34
    return volume + noise * rng.standard_normal(volume.shape, dtype=np.float32), masks


def _ct_finding(hu: F32, f: Finding, r: float, phases: Sequence[float], lung: F32, texture: F32) -> Pair:
    v, u = unit(len(hu))
    if f.label == "effusion":  # fluid layers at the back of the lung
        cover = lung * step(
            v - (0.68 - 0.14 * f.severity) - 0.3 * (u - (0.71 if f.side == "left" else 0.29)) ** 2, 0.02
        )
        return hu + (12 - hu) * cover, cover
    if f.label == "consolidation":
        cover = _ball(v, u, f, r, phases, 0.35, 0.05) * lung
        return hu + (-60 + 90 * texture - hu) * cover * 0.85, cover
    if f.label == "bulla":
        outer, inner = _ball(v, u, f, r, phases, 0.15, 0.012), _ball(v, u, f, r - 0.014, phases, 0.15, 0.012)
        return hu + (-480 - hu) * (outer - inner) * lung + (-992 - hu) * inner * lung, outer * lung
    if f.label == "cavity":
        outer, inner = _ball(v, u, f, r, phases, 0.1, 0.012), _ball(v, u, f, 0.5 * r, phases, 0.1, 0.012)
        return hu + (20 - hu) * (outer - inner) + (-950 - hu) * inner, outer
    cover = _ball(v, u, f, r, phases, 0.12, 0.014)
    return hu + (40 - hu) * cover, cover


def mr(patient: Patient, found: Sequence[Finding], rng: np.random.Generator, size: int) -> Drawn:
    """Axial FLAIR-like brain MR (12, size, size), 0 to about 1000: rows run to the back, columns to the patient's left,
    slices to the head."""
    v, u = unit(size)
    rng, own = streams(rng, "mr")
    n = SLICES["mr"]
    plans = [(f, *_plan(f, "mr", own[f.label])) for f in found]
    fold = smooth((n, size, size), size / 38, rng)
    field = 1 + 0.12 * smooth((n, size, size), size / 3, rng)
    volume = np.empty((n, size, size), np.float32)
    masks = [np.zeros((n, size, size), bool) for _ in found]
    wide = 1 + 0.03 * rng.normal()
    big = next((1.55 + 0.5 * f.severity for f in found if f.label == "hydrocephalus"), 0.0)
    scale = big or 0.85 + 0.02 * (patient.age - 55) / 10 + 0.08 * rng.normal()
    for z in range(n):
        shrink = np.sqrt(1 - ((z - n / 2 + 0.5) / (0.78 * n)) ** 2)
        rho = np.hypot((v - 0.5) / (0.44 * shrink), (u - 0.5) / (0.37 * shrink * wide))
        head, skull, brain = (step((k - rho) * 0.4, 0.012) for k in (1.0, 0.93, 0.84))
        cortex = step((rho - 0.74 - 0.06 * fold[z]) * 0.4, 0.03) * brain
        image = 0.75 * head - 0.62 * skull + 0.33 * brain + 0.13 * cortex + 0.015 * fold[z] * brain
        image = image * (1 - 0.75 * brain * step((rho - 0.8 - 0.09 * np.clip(fold[z], -1, 0.4)) * 0.4, 0.02))
        image = image * (1 - 0.6 * brain * step(0.006 - np.abs(u - 0.5), 0.008) * step(np.abs(v - 0.5) - 0.16, 0.02))
        open_ = step(2.6 + scale - np.abs(z - n / 2 + 0.5), 1.0)
        ventricle = open_ * np.maximum(_horn(v, u, 0.5 + 0.028 * scale, scale), _horn(v, u, 0.5 - 0.028 * scale, scale))
        image = image + (0.07 - image) * ventricle
        for (f, radii, phases, scatter), mask in zip(plans, masks, strict=True):
            if f.label == "hydrocephalus":
                mask[z] = ventricle > 0.5
                continue
            image, cover = _mr_finding(image, f, radii[z], phases, scatter, rho)
            mask[z] = cover * brain > 0.5
        volume[z] = image
    noisy = volume * field + 0.022 * rng.standard_normal(volume.shape, dtype=np.float32)
    return 1000 * np.abs(noisy), masks


def _horn(v: F32, u: F32, centre: float, scale: float) -> F32:
    lean = 0.3 * (1 if centre > 0.5 else -1)
    return oval(v, u - lean * (v - 0.47) ** 2 * 2, 0.47, centre, 0.115 * scale**0.7, 0.021 * scale, 0.012)


def _mr_finding(image: F32, f: Finding, r: float, phases: Sequence[float], scatter: F32, rho: F32) -> Pair:
    v, u = unit(len(image))
    if f.label == "infarct":  # a wedge that opens towards the cortex
        if r <= 0:
            return image, np.zeros(v.shape, np.float32)
        here = np.arctan2(f.y - 0.5, f.x - 0.5)
        turn = np.abs((np.arctan2(v - 0.5, u - 0.5) - here + np.pi) % (2 * np.pi) - np.pi)
        cover = step(0.17 + r - turn, 0.08) * step(rho - 0.36, 0.05) * step(0.82 - rho, 0.03)
        return image + (0.6 + 0.14 * f.severity - image) * cover * 0.85, cover
    if f.label == "white_matter_lesion":
        cover = np.zeros(v.shape, np.float32)
        reach = f.size_mm / 2 / FIELD_MM["mr"]
        for dv, du, level in scatter.tolist():
            if r <= 0 or level < -0.6:
                continue
            spot = replace(f, x=f.x + du * reach, y=f.y + dv * reach)
            cover = np.maximum(cover, _ball(v, u, spot, 0.017 + 0.006 * level, phases, 0.1, 0.014))
        return image + (0.64 + 0.2 * f.severity - image) * cover, cover
    outer = _ball(v, u, f, r, phases, 0.15, 0.014)
    if f.label == "tumour":
        halo, core = _ball(v, u, f, 1.5 * r, phases, 0.4, 0.05), _ball(v, u, f, 0.6 * r, phases, 0.2, 0.014)
        image = image + (0.62 - image) * halo * 0.7
        return image + (0.7 + 0.25 * f.severity - image) * (outer - core) + (0.22 - image) * core, outer
    core = _ball(v, u, f, 0.72 * r, phases, 0.15, 0.014)  # haemorrhage: dark core, bright rim
    return image + (0.68 - image) * (outer - core) + (0.04 - image) * core, outer
