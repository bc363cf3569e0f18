"""Siamese networks: one encoder, used for both images, and a head that turns two embeddings into a logit."""

from siamese_fast.network.encoders import ConvEncoder, MLPEncoder
from siamese_fast.network.export import export_onnx, export_program
from siamese_fast.network.heads import DistanceHead, Head, KochHead
from siamese_fast.network.siamese import SiameseNetwork

__all__ = [
    "ConvEncoder",
    "DistanceHead",
    "Head",
    "KochHead",
    "MLPEncoder",
    "SiameseNetwork",
    "export_onnx",
    "export_program",
]
