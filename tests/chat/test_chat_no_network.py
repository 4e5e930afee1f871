"""No default port opens a socket or looks a name up, and none loads torch."""

import subprocess
import sys

SCRIPT = """
import sys
def watch(event, args):
    if event.startswith(("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto", "urllib.Request")):
        raise RuntimeError(f"{event} {args}")
sys.addaudithook(watch)
import tempfile, warnings
from pathlib import Path
import numpy as np
from fabrica.chat import *
from fabrica.curate.language.write import Write
from fabrica.encode.grow import Grow
from fabrica.encode.hashed import ColourTexture, HashedText
from fabrica.encode.logistic import LogisticScorer
from fabrica.sources.transcript import Sidecar
from fabrica.types import Item, Origin, Record, Region

folder = Path(tempfile.mkdtemp())
o = Origin("made", "a.wav", "", "")
schema = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}}
recorded = Recorded(folder / "r.jsonl", TemplateGrammar())
model = Cached(Budgeted(Checked(recorded), max_tokens=10**6), folder / "c.sqlite")
images = [Item("image", np.full((32, 32), 40 * k, np.uint8), o) for k in range(6)]
records = [Record(f"r{k}", f"p{k}", {"modality": "xray"}, {"image": (i,)}, labels={"mass": float(k % 2)})
           for k, i in enumerate(images)]
written = list(Write(model, prompt("caption"), workers=2)(records, print))
assert all(r.first("caption").text() for r in written)
assert len(list(many(model, [Request(user('{"findings": ["mass"]}'), schema=schema)], journal=folder / "j"))) == 1
scorer = LogisticScorer.fit(records, ["mass"], embed=ColourTexture())
assert 0 <= scorer(records[0])["mass"] <= 1
assert HashedText()([Item("text", "mass", o)]).shape == (1, 1024)
Grow()(images[1], [Region("image", "point", np.array([3, 3]), "mass", o)])
(folder / "a.srt").write_text("1\\n00:00:01,000 --> 00:00:02,000\\nno effusion\\n")
assert len(Sidecar(folder)(Item("audio", np.zeros((1, 9)), o, rate=9.0))) == 2
assert RuleJudge()("q", "yes", "yes").score == 1
assert ChatJudge(TemplateGrammar())("q", "yes", "yes").score == 0
assert "torch" not in sys.modules and "openai" not in sys.modules
try:
    import socket; socket.create_connection(("127.0.0.1", 9))
except RuntimeError:
    print("watched")
"""


def test_no_default_port_opens_a_socket() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.stdout.strip() == "watched", done.stderr[-2000:]
