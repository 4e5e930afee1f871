"""Formulas as text: MathML and the common part of LaTeX -> one line that reads ("(a)/(b)", "x^2", "α")."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html.entities import html5
from types import MappingProxyType
from typing import Any

_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "times": "×", "cdot": "·", "pm": "±", "mp": "∓", "leq": "≤", "le": "≤", "geq": "≥", "ge": "≥", "neq": "≠",
        "ne": "≠", "approx": "≈", "sim": "~", "infty": "∞", "sum": "∑", "prod": "∏", "int": "∫", "partial": "∂",
        "nabla": "∇", "in": "∈", "to": "→", "rightarrow": "→", "leftarrow": "←", "ldots": "...", "cdots": "...",
        "dots": "...", "mid": "|", "circ": "°", "degree": "°", "prime": "'", "propto": "∝", "equiv": "≡",
        "varepsilon": "ε", "varphi": "φ", "ell": "ℓ", "log": "log", "ln": "ln", "exp": "exp", "sin": "sin",
        "cos": "cos", "tan": "tan", "max": "max", "min": "min", "lim": "lim", "quad": " ", "qquad": " ", "hat": "",
        "bar": "", "vec": "", "tilde": "", "left": "", "right": "", "displaystyle": "", "textstyle": "", "mathrm": "",
        "mathbf": "", "mathit": "", "text": "", "textrm": "", "textit": "", "mathcal": "", "boldsymbol": "", "rm": "",
        "operatorname": "", "limits": "", "nolimits": "", "big": "", "Big": "", "bigl": "", "bigr": "", "mathsf": "",
        "%": "%", "&": "&", "_": "_", "#": "#", "$": "$", "{": "{", "}": "}", ",": " ", ";": " ", ":": " ", "!": "",
        " ": " ", "\\": " ",
    }
)  # fmt: skip
_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|[{}^_&~]|[^\\{}^_&~]", re.S)
_MOST = 20_000  # characters of one formula's source that are read; what is longer is cut


def formula(node: Any) -> str:
    """The text of `disp-formula`, `inline-formula`, `math` or `tex-math`: of MathML, else of TeX, else what text it
    holds; "" for a formula that is only a picture.

    >>> from fabrica.safe import xml
    >>> formula(xml('<math><mfrac><mi>a</mi><mn>2</mn></mfrac><mo>+</mo><msup><mi>x</mi><mn>2</mn></msup></math>'))
    'a/2+x^2'
    """
    name = _tag(node)
    if name == "tex-math":
        return tex("".join(node.itertext()))
    if name == "math":
        return " ".join(_math(node).split())
    for want in ("math", "tex-math"):
        for found in node.iter("{*}" + want):
            return formula(found)
    parts = [node.text or ""]
    for child in node:
        if _tag(child) not in ("graphic", "inline-graphic", "media", "label", "alt-text", "object-id", ""):
            parts.append(formula(child))
        parts.append(child.tail or "")
    return " ".join("".join(parts).split())


def _tag(node: Any) -> str:
    return node.tag.rsplit("}", 1)[-1] if isinstance(node.tag, str) else ""


def _math(node: Any) -> str:
    name = _tag(node)
    if not name:
        text = getattr(node, "text", None) or ""
        return html5.get(text[1:], text) if text[:1] == "&" else ""
    if name in ("annotation", "annotation-xml", "maligngroup", "malignmark"):
        return ""
    kids = [c for c in node if _tag(c)]
    if name in _PAIRS and len(kids) >= 2:
        first, second = _math(kids[0]), _math(kids[1])
        if name == "mfrac":
            return f"{_group(first)}/{_group(second)}"
        rest = f"^{_group(_math(kids[2]))}" if name in ("msubsup", "munderover") and len(kids) > 2 else ""
        return f"{first}{_PAIRS[name]}{_group(second)}{rest}"
    if name in ("msqrt", "mroot"):
        return f"sqrt({''.join(_math(c) for c in kids[:1] if name == 'mroot') or _all(node)})"
    if name == "mtr":
        return " ".join(_math(c) for c in kids) + "; "
    if name == "mfenced":
        start, end = node.get("open", "("), node.get("close", ")")
        return f"{start}{', '.join(_math(c) for c in kids)}{end}"
    if name == "mspace":
        return " "
    return _all(node)


_PAIRS: Mapping[str, str] = MappingProxyType(
    {"mfrac": "/", "msup": "^", "msub": "_", "msubsup": "_", "munder": "_", "mover": "^", "munderover": "_"}
)


def _all(node: Any) -> str:
    """Text and children in order."""
    parts = [(node.text or "").strip()]
    for child in node:
        parts.append(_math(child))
        parts.append((child.tail or "").strip())
    return "".join(parts)


def _group(text: str) -> str:
    text = text.strip()
    return text if len(text) <= 1 or text.isalnum() or (text[0] in "(-" and text[1:].isalnum()) else f"({text})"


def tex(source: str) -> str:
    """LaTeX -> text; a whole document (as PMC stores it) is cut to its body, commands that are not known stay.

    >>> tex(r"\\documentclass{minimal}\\begin{document}$$\\frac{a+b}{2} \\leq \\alpha^{2}$$\\end{document}")
    '(a+b)/2 ≤ α^2'
    """
    body = re.search(r"\\begin\{document\}(.*?)\\end\{document\}", source[:_MOST], re.S)
    text = (body.group(1) if body else source[:_MOST]).replace("$", "").strip()
    text = re.sub(r"\\(begin|end)\{[a-z*]+\}(\{[lcr|]*\})?", " ", text)
    tokens = _TOKEN.findall(text)
    return " ".join(_tex(tokens, 0, len(tokens), 0).split())


def _tex(tokens: list[str], at: int, end: int, depth: int) -> str:
    parts: list[str] = []
    while at < end:
        token = tokens[at]
        at += 1
        if token in ("\\frac", "\\dfrac", "\\tfrac"):
            top, at = _argument(tokens, at, end, depth)
            bottom, at = _argument(tokens, at, end, depth)
            parts.append(f"{_group(top)}/{_group(bottom)}")
        elif token == "\\sqrt":
            inner, at = _argument(tokens, at, end, depth)
            parts.append(f"sqrt({inner.strip()})")
        elif token in "^_":
            inner, at = _argument(tokens, at, end, depth)
            parts.append(f"{token}{_group(inner)}" if inner.strip() else "")
        elif token in "{}&~":
            parts.append(" " if token in "&~" else "")
        elif token[0] == "\\":
            name = token[1:]
            parts.append(_NAMES.get(name, html5.get(name + ";", token)))
        else:
            parts.append(token)
    return "".join(parts)


def _argument(tokens: list[str], at: int, end: int, depth: int) -> tuple[str, int]:
    """The next group `{...}` or the next token, and where it ends."""
    while at < end and tokens[at].isspace():
        at += 1
    if at >= end:
        return "", at
    if tokens[at] != "{" or depth > 40:
        return _tex(tokens, at, at + 1, depth + 1), at + 1
    level, stop = 0, at
    while stop < end:
        level += {"{": 1, "}": -1}.get(tokens[stop], 0)
        stop += 1
        if level == 0:
            break
    return _tex(tokens, at + 1, stop - 1 if level == 0 else stop, depth + 1), stop
