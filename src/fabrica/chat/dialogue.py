"""The writer of conversations that needs no download: each sentence of a caption becomes an answer, by rule."""

from __future__ import annotations

import random
import re

from fabrica.chat.request import Asked, Request
from fabrica.chat.scripted import words
from fabrica.encode.text import sentences
from fabrica.types import Reply

FIRST = ("What does this image show?", "What is seen in this image?", "Can you describe the image?")
NEXT = ("What else can be seen?", "Is there anything else of note?", "What further is visible?", "And what besides?")
_GIVEN = re.compile(
    r"^figure (caption|context): ?(.*(?:\n(?!figure (?:caption|context):).*)*)", re.IGNORECASE | re.MULTILINE
)
_LETTER = re.compile(r"^\(?[A-Za-z]\)[.,:]?\s+|\s*\((?:fig(?:ure|s)?\.? ?\d+\w*|[A-Z])\)", re.IGNORECASE)


class TemplateDialogue(Asked):
    """Reads "Figure caption:" and "Figure context:" in the last message and answers with one turn a sentence, in its
    own words; panel letters and references to figures are left out. What varies with `seed` is how it is asked.

    >>> from fabrica.chat.request import user
    >>> said = TemplateDialogue()(user("Figure caption: (A) Left nodule.\\nFigure context: none")).text
    >>> said.splitlines()[1]
    'Assistant: Left nodule.'
    """

    name = "template-dialogue@1"

    def answer(self, request: Request) -> Reply:
        """Turns, as many as there are sentences; `max_tokens` counts words and drops whole turns."""
        about = given(request.messages[-1].text)
        told = [s for k in ("caption", "context") for s in sentences(about.get(k, ""))]
        rng = random.Random(f"{request.seed}\x1f{about}")
        lines: list[str] = []
        count = 0
        for sentence in told:
            said = " ".join(_LETTER.sub("", sentence).split())
            count += len(said.split()) + 6
            if not said or count > request.max_tokens:
                continue
            lines += [f"User: {rng.choice(NEXT if lines else FIRST)}", f"Assistant: {said[:1].upper()}{said[1:]}"]
        text = "\n".join(lines)
        return Reply(text, self.name, words(request), len(text.split()))


def given(text: str) -> dict[str, str]:
    """ "caption" and "context" of a figure as prompt `converse` gives them; what is "none" is left out.

    >>> given("Figure caption: Left nodule.\\nFigure context: none")
    {'caption': 'Left nodule.'}
    """
    found = {m[1].lower(): m[2].strip() for m in _GIVEN.finditer(text)}
    return {k: v for k, v in found.items() if v.lower() != "none"}
