"""Encoders for each kind of data, heads, towers into one space, and the bundle that saves them with their transform."""

from fabrica.models.adapt import Freeze, Lora
from fabrica.models.body import Body, Pooling, Tokens
from fabrica.models.bundle import Bundle
from fabrica.models.cache import FeatureCache
from fabrica.models.classify import classifier
from fabrica.models.heads import ProjectionHead, normalise
from fabrica.models.maps import heatmap
from fabrica.models.multi import MultiTower
from fabrica.models.signal_tower import SignalTower
from fabrica.models.small import ConvTower, LinearTower, TableTower, VolumeTower
from fabrica.models.text_tower import TextTower
from fabrica.models.towers import Tower
from fabrica.models.transformers_tower import TransformersTower

__all__ = [
    "Body", "Bundle", "ConvTower", "FeatureCache", "Freeze", "LinearTower", "Lora", "MultiTower", "Pooling",
    "ProjectionHead", "SignalTower", "TableTower", "TextTower", "Tokens", "Tower", "TransformersTower", "VolumeTower",
    "classifier", "heatmap", "normalise",
]  # fmt: skip
