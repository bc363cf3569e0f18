"""Data: images in memory, where they come from, and how batches and episodes are drawn from them.

Loaders (each returns an `ImageSet`): `glyphs` (the embedded default), `digits`, `omniglot` and
`omniglot_runs`, `image_folder`, `image_csv`, `from_arrays`. Libraries that only a loader needs are imported
when it is called.
"""

from siamese_fast.data.augment import Augmentation, centre_crop, rotations_as_classes
from siamese_fast.data.digits import digits
from siamese_fast.data.folders import from_arrays, image_csv, image_folder
from siamese_fast.data.glyphs import GlyphRecipe, glyphs
from siamese_fast.data.imageset import ImageSet
from siamese_fast.data.omniglot import OneShotRun, omniglot, omniglot_runs
from siamese_fast.data.samplers import Episode, EpisodeSampler, Pairs, PairSampler, PKSampler

__all__ = [
    "Augmentation",
    "Episode",
    "EpisodeSampler",
    "GlyphRecipe",
    "ImageSet",
    "OneShotRun",
    "PKSampler",
    "PairSampler",
    "Pairs",
    "centre_crop",
    "digits",
    "from_arrays",
    "glyphs",
    "image_csv",
    "image_folder",
    "omniglot",
    "omniglot_runs",
    "rotations_as_classes",
]
