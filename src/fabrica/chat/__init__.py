"""Chat models: backends (grammar, recorded, scripted, endpoint, local) and wrappers (cached, budgeted, checked, many).

    model = Cached(Budgeted(Checked(TemplateGrammar()), max_tokens=1_000_000), "replies.sqlite")
    for reply in many(model, requests, journal="run.sqlite"): ...

Every backend and wrapper is a `types.ChatModel`; a wrapper keeps the name of what it wraps, so that wrapping
changes no cache key.
"""

from fabrica.chat.budget import Budgeted, BudgetSpent
from fabrica.chat.cached import Cached
from fabrica.chat.endpoint import Endpoint
from fabrica.chat.grammar import TemplateGrammar
from fabrica.chat.judge import ChatJudge, RuleJudge
from fabrica.chat.local import LocalChat
from fabrica.chat.many import Failure, many
from fabrica.chat.prompts import Prompt, prompt
from fabrica.chat.recorded import Recorded
from fabrica.chat.request import ChatFailed, NotRecorded, Request, user
from fabrica.chat.schema import Checked
from fabrica.chat.scripted import Scripted

__all__ = [
    "BudgetSpent", "Budgeted", "Cached", "ChatFailed", "ChatJudge", "Checked", "Endpoint", "Failure", "LocalChat",
    "NotRecorded", "Prompt", "Recorded", "Request", "RuleJudge", "Scripted", "TemplateGrammar", "many", "prompt",
    "user",
]  # fmt: skip
