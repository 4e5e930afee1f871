"""What a saved folder may name and where its class is: fusions, bodies, transforms that came after the first ones.

Tables alone: a proof's numbers do not depend on them (`proofs.depends` leaves this file out), so that a new entry makes
no stored result stale.
"""

from __future__ import annotations

BUNDLES: dict[str, str] = {  # a key of config.json -> the bundle of that family; the first that fits
    "language": "fabrica.models.language_bundle:LanguageBundle",
    "prompted": "fabrica.models.prompt_bundle:PromptBundle",
    "assistant": "fabrica.models.assistant_bundle:AssistantBundle",
    "fusion": "fabrica.models.fusion_bundle:FusionBundle",
    "dense": "fabrica.models.dense_bundle:DenseBundle",
    "latent": "fabrica.models.latent_bundle:LatentBundle",
    "span_graph": "fabrica.models.span_bundle:SpanBundle",
}
FUSIONS: dict[str, str] = {  # "fusion" in config.json -> where its class is
    "sequential": "fabrica.models.sequential:Sequential",
    "parallel": "fabrica.models.parallel:Parallel",
    "table_image": "fabrica.models.table_image:TableImage",
    "translate": "fabrica.models.translate:Translate",
}
MORE_BODIES: dict[str, str] = {
    "cells": "fabrica.models.table_tokens:TableEncoder",
    "bag": "fabrica.models.bags:BagBody",
    "groups": "fabrica.models.bags:GroupsBody",
}
MORE_ENCODES: dict[str, str] = {
    "cells": "fabrica.encode.cells:CellsEncode",
    "bag": "fabrica.encode.bags:BagEncode",
    "groups": "fabrica.encode.groups:GroupEncode",
    "whole_text": "fabrica.encode.whole_text:WholeText",
}
