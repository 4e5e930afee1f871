"""A speech model of the Whisper class as a transcriber: audio -> timed words."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import Refused, UsageError, need
from fabrica.sources.transcript import Word, regions, shared
from fabrica.types import Item, Region

RATE = 16_000  # Hz that these models hear
LONGEST = 30  # seconds of one window


class Whisper:
    """Words of an audio item (channels, samples) with its `rate`, by a folder that `save_pretrained` wrote.

    The mean of the channels at 16 kHz, in windows of 30 s; greedy, so that the same audio gives the same words. Times
    are the model's own: of words where its alignment heads are known (`words=True`), else of segments, shared among
    their words by length. `language` ("en") skips detection in models that know several. Only safetensors are read.
    """

    version = "1"

    def __init__(
        self, folder: str | Path, *, role: str = "audio", language: str = "", words: bool = False, device: str = "cpu"
    ) -> None:
        self.folder, self.role, self.language = Path(folder), role, language
        self.words, self.device = words, device
        self._pair: tuple[Any, Any] | None = None
        self._name, self._lock = "", threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_pair", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _pair=None, _lock=threading.RLock())

    @property
    def name(self) -> str:
        """The folder's name and the hash of its weights."""
        from fabrica.models.embed import folder_mark

        with self._lock:
            self._name = self._name or f"{self.folder.name}:{folder_mark(self.folder)}"
            return self._name

    def __call__(self, item: Item, /) -> tuple[Region, ...]:
        """Words in order as time regions."""
        sound = mono(item)
        origin = replace(item.origin, by="model").then(f"transcribe:{self.name}")
        found: list[Word] = []
        with self._lock:
            for start in range(0, len(sound), LONGEST * RATE):
                window = sound[start : start + LONGEST * RATE]
                ends = len(window) / RATE
                for begun, done, text in self._window(window):
                    low, high = min(begun, ends), min(max(done, begun), ends)
                    found += shared(start / RATE + low, start / RATE + high, text)
        return regions(sorted(found, key=lambda w: w[0]), origin, self.role)

    def _loaded(self) -> tuple[Any, Any]:
        if self._pair is None:
            tf: Any = need("transformers", "train")
            if not list(self.folder.glob("*.safetensors")):
                raise Refused("checkpoint_format", f"{str(self.folder)!r} holds no .safetensors")
            try:
                processor = tf.AutoProcessor.from_pretrained(self.folder, local_files_only=True)
                model = tf.AutoModelForSpeechSeq2Seq.from_pretrained(
                    self.folder, use_safetensors=True, local_files_only=True, dtype="float32"
                )
            except (OSError, ValueError) as error:
                raise UsageError(f"cannot load {str(self.folder)!r}: {str(error).splitlines()[0]}") from error
            self._pair = (model.eval().to(self.device), processor)
        return self._pair

    def _window(self, sound: NDArray[np.float32]) -> list[tuple[float, float, str]]:
        """(start, end, text) of one window, seconds from its start."""
        torch = need("torch", "train")
        model, processor = self._loaded()
        told = processor(sound, sampling_rate=RATE, return_tensors="pt", return_attention_mask=True)
        asked: dict[str, Any] = {"language": self.language} if self.language else {}
        if self.words:
            asked["return_token_timestamps"] = True
        with torch.no_grad():
            made = model.generate(
                told.input_features.to(self.device), attention_mask=told.attention_mask.to(self.device),
                return_timestamps=True, do_sample=False, num_beams=1, **asked,
            )  # fmt: skip
        tokenizer = processor.tokenizer
        ids = (made["sequences"] if isinstance(made, dict) else made)[0].tolist()
        if self.words and isinstance(made, dict) and "token_timestamps" in made:
            times = made["token_timestamps"][0].tolist()
            if all(map(math.isfinite, times)):
                return _by_token(tokenizer, ids, times)
        return _by_segment(tokenizer, ids)


def mono(item: Item) -> NDArray[np.float32]:
    """(samples,) at 16 kHz."""
    from scipy.signal import resample_poly

    if item.kind != "audio" or not item.present or item.rate is None:
        raise UsageError(f"a transcriber hears audio with a rate; got kind {item.kind!r}, rate {item.rate}")
    array = item.array()
    if array.ndim != 2 or not array.size or item.rate <= 0:
        raise UsageError(f"audio of shape {array.shape} at {item.rate} Hz; wanted (channels, samples)")
    whole = np.iinfo(array.dtype).max + 1 if array.dtype.kind == "i" else 1
    sound = array.astype(np.float32).mean(0) / whole
    if not np.isfinite(sound).all():
        raise UsageError("audio with NaN or infinite samples")
    rate = round(item.rate)
    shared_by = math.gcd(rate, RATE)
    out = sound if rate == RATE else resample_poly(sound, RATE // shared_by, rate // shared_by)
    return np.asarray(out, np.float32)


def _by_segment(tokenizer: Any, ids: list[int]) -> list[tuple[float, float, str]]:
    """Segments between time tokens (<|0.00|> and on, 0.02 s apart), which follow the last special token."""
    first = tokenizer.convert_tokens_to_ids("<|0.00|>")
    special = set(tokenizer.all_special_ids)
    out, begun, text = [], 0.0, list[int]()
    for token in ids:
        if token >= first:
            at = (token - first) * 0.02
            if text:
                out.append((begun, at, str(tokenizer.decode(text))))
            begun, text = at, []
        elif token not in special:
            text.append(token)
    return [*out, (begun, begun, str(tokenizer.decode(text)))] if text else out


def _by_token(tokenizer: Any, ids: list[int], times: list[float]) -> list[tuple[float, float, str]]:
    """Words from tokens: a token that begins with a blank begins a word."""
    special, out = set(tokenizer.all_special_ids), list[tuple[float, float, str]]()
    first = tokenizer.convert_tokens_to_ids("<|0.00|>")
    for n, token in enumerate(ids):
        if token in special or token >= first:
            continue
        piece = str(tokenizer.decode([token]))
        until = times[min(n + 1, len(times) - 1)]
        if out and not piece.startswith(" "):
            out[-1] = (out[-1][0], until, out[-1][2] + piece)
        else:
            out.append((times[n], until, piece))
    return out
