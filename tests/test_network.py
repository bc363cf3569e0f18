"""SiameseNetwork: encoders, heads, probabilities and their calibration, saving, export."""

from __future__ import annotations

import importlib.util
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from siamese_fast import ops
from siamese_fast.network import (
    ConvEncoder,
    DistanceHead,
    Head,
    KochHead,
    MLPEncoder,
    SiameseNetwork,
    export_onnx,
    export_program,
)
from siamese_fast.network.calibration import fit_platt, threshold_at

METRICS = ("euclidean", "sqeuclidean", "cosine", "dot", "manhattan")
HEADS: dict[str, Head] = {
    "koch": KochHead(32),
    "koch hidden": KochHead(32, hidden=(16, 8)),
    **{metric: DistanceHead(metric) for metric in METRICS},
}


@pytest.fixture
def network() -> SiameseNetwork:
    torch.manual_seed(0)
    encoder = ConvEncoder(image_size=12, channels=(8, 16))
    return SiameseNetwork(encoder, KochHead(encoder.out_features))


def blobs(classes: int = 6, each: int = 10, dim: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Well-separated embeddings [N, D] and their labels [N]."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(classes).repeat_interleave(each)
    centres = torch.randn(classes, dim, generator=generator)
    return centres[labels] + 0.4 * torch.randn(len(labels), dim, generator=generator), labels


class TestEncoders:
    @pytest.mark.parametrize(
        ("arguments", "dim"),
        [
            ({}, 64 * 3 * 3),
            ({"channels": (32, 64, 64, 64), "pool_last": True}, 64),
            ({"image_size": 35, "channels": (8,)}, 8 * 35 * 35),
            ({"embedding_dim": 48, "dropout": 0.5}, 48),
            ({"in_channels": 3, "image_size": 16, "channels": (4, 5)}, 5 * 8 * 8),
        ],
    )
    def test_conv_sizes(self, arguments: dict[str, object], dim: int) -> None:
        encoder = ConvEncoder(**arguments)  # type: ignore[arg-type]
        side = encoder.config()["image_size"]
        assert encoder.out_features == dim
        assert encoder(torch.rand(2, encoder.config()["in_channels"], side, side)).shape == (2, dim)

    def test_mlp_flattens_images(self) -> None:
        encoder = MLPEncoder(144, hidden=(20, 10), embedding_dim=7)
        assert encoder(torch.rand(3, 1, 12, 12)).shape == (3, 7)

    def test_too_small_an_image_is_named(self) -> None:
        with pytest.raises(ValueError, match="image_size=6 is too small"):
            ConvEncoder(image_size=6)
        with pytest.raises(ValueError, match="at least one block"):
            ConvEncoder(channels=())


class TestHeads:
    @pytest.mark.parametrize("name", HEADS)
    def test_pairs_are_the_diagonal_of_the_matrix(self, name: str) -> None:
        q, s = torch.randn(9, 32), torch.randn(9, 32)
        head = HEADS[name]
        torch.testing.assert_close(head.pairs(q, s), head.matrix(q, s).diagonal(), rtol=1e-5, atol=1e-5)

    def test_koch_is_the_published_formula(self) -> None:
        head = KochHead(32)
        with torch.no_grad():
            head.weight.normal_()
            head.bias.fill_(0.7)
        h1, h2 = torch.randn(5, 32), torch.randn(5, 32)
        expected = functional.linear((h1 - h2).abs(), head.weight[None], head.bias).squeeze(1)
        torch.testing.assert_close(head.pairs(h1, h2), expected)

    @pytest.mark.parametrize("name", HEADS)
    def test_rescale_is_affine(self, name: str) -> None:
        q, s = torch.randn(4, 32), torch.randn(6, 32)
        head = HEADS[name]
        before = head.matrix(q, s)
        head.rescale(2.0, -0.5)
        torch.testing.assert_close(head.matrix(q, s), 2 * before - 0.5, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("name", [name for name in HEADS if name != "koch hidden"])
    def test_lookup_ranks_as_the_head(self, name: str) -> None:
        q, s = torch.randn(7, 32), torch.randn(11, 32)
        lookup = HEADS[name].lookup()
        assert lookup is not None
        _, index = ops.nearest_support(q, s, **lookup)
        assert torch.equal(index[:, 0], HEADS[name].matrix(q, s).argmax(1))

    def test_hidden_layers_get_gradients_and_no_lookup(self) -> None:
        head = KochHead(32, hidden=(16,))
        head.matrix(torch.randn(4, 32), torch.randn(5, 32)).sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())
        assert head.lookup() is None


class TestCompare:
    def test_probability_of_each_pair(self, network: SiameseNetwork) -> None:
        a, b = torch.rand(5, 1, 12, 12), torch.rand(5, 1, 12, 12)
        network.train()
        probability = network.compare(a, b)
        assert probability.shape == (5,) and ((probability > 0) & (probability < 1)).all()
        assert not probability.requires_grad and network.training
        torch.testing.assert_close(probability, network.compare(b, a))

    def test_frozen_parts_stay_frozen(self, network: SiameseNetwork) -> None:
        network.train()
        network.encoder.eval()
        network.encode(torch.rand(2, 1, 12, 12))
        assert network.training and not network.encoder.training

    def test_encode_in_batches(self, network: SiameseNetwork) -> None:
        images = torch.rand(7, 1, 12, 12)
        torch.testing.assert_close(network.encode(images, batch_size=3), network.encode(images))

    def test_any_module_encodes(self) -> None:
        network = SiameseNetwork(nn.Sequential(nn.Flatten(), nn.Linear(9, 4)), DistanceHead("cosine"))
        assert network.compare(torch.rand(3, 3, 3), torch.rand(3, 3, 3)).shape == (3,)

    def test_errors_name_the_argument(self, network: SiameseNetwork) -> None:
        with pytest.raises(ValueError, match="a and b must have the same shape"):
            network.compare(torch.rand(2, 1, 12, 12), torch.rand(3, 1, 12, 12))
        with pytest.raises(ValueError, match=r"encoder must return embeddings \[N, D\]"):
            SiameseNetwork(nn.Identity(), KochHead(4)).embed(torch.rand(2, 1, 4, 4))


class TestCalibration:
    @pytest.mark.parametrize(
        "head", [KochHead(32), KochHead(32, hidden=(8,)), DistanceHead("euclidean")], ids=str
    )
    def test_probabilities_become_right(self, head: Head) -> None:
        embeddings, labels = blobs()
        if isinstance(head, KochHead) and head.hidden:
            nn.init.constant_(head.weight, -0.3)
        network = SiameseNetwork(nn.Identity(), head)
        order = network.head.matrix(embeddings, embeddings).argsort()
        network.calibrate(embeddings, labels, false_accept_rate=0.05)
        assert torch.equal(network.head.matrix(embeddings, embeddings).argsort(), order)
        i, j = torch.triu_indices(len(labels), len(labels), 1)
        same, accepted = labels[i] == labels[j], network.same(embeddings[i], embeddings[j])
        assert accepted[~same].float().mean() <= 0.05 + 2e-3  # rounding may move a pair or two across
        assert math.isclose(float(network.false_accept_rate), 0.05, rel_tol=1e-6)
        probability = network.compare(embeddings[i], embeddings[j])
        # Maximum likelihood with an intercept: the two kinds' mean residuals cancel.
        assert math.isclose(
            float((1 - probability[same]).mean()), float(probability[~same].mean()), abs_tol=0.02
        )

    def test_platt_recovers_the_sigmoid(self) -> None:
        generator = torch.Generator().manual_seed(0)
        target = torch.arange(20_000) % 2 == 0
        # Two unit normals at +-1 have log odds 2x; shifted and scaled: 2 (3x + 4) -> x' = (x - 4) / 3.
        x = torch.randn(20_000, generator=generator) + torch.where(target, 1.0, -1.0)
        scale, bias = fit_platt((x - 4) / 3, target)
        assert math.isclose(scale, 6, rel_tol=0.05) and math.isclose(bias, 8, rel_tol=0.05)

    def test_platt_is_finite_when_separated(self) -> None:
        scale, bias = fit_platt(
            torch.tensor([-2.0, -1.0, 1.0, 2.0]), torch.tensor([False, False, True, True])
        )
        assert 0 < scale < 100 and abs(bias) < 1e-3

    def test_platt_refuses_what_cannot_be_fitted(self) -> None:
        with pytest.raises(ValueError, match="both kinds of pair"):
            fit_platt(torch.rand(3), torch.ones(3, dtype=torch.bool))
        with pytest.raises(ValueError, match="nothing to calibrate"):
            fit_platt(torch.tensor([0.0, 1.0]), torch.tensor([True, False]))

    @pytest.mark.parametrize("rate", [0.0, 0.1, 0.25, 1.0])
    def test_threshold_keeps_the_rate(self, rate: float) -> None:
        probabilities = torch.linspace(0.01, 0.99, 40)
        accepted = int((probabilities >= threshold_at(probabilities, rate)).sum())
        assert accepted == int(rate * 40)

    def test_threshold_with_ties(self) -> None:
        assert threshold_at(torch.full((10,), 0.5), 0.3) > 0.5

    def test_whole_classes_are_kept(self) -> None:
        embeddings, labels = blobs(classes=20)
        network = SiameseNetwork(nn.Identity(), DistanceHead())
        network.calibrate(embeddings, labels, max_images=40)
        assert float(network.head.scale) != 1


class TestSaving:
    def test_round_trip(self, network: SiameseNetwork, tmp_path: object) -> None:
        path = f"{tmp_path}/network.safetensors"
        with torch.no_grad():
            network.threshold.fill_(0.8)
        network.save(path)
        loaded = SiameseNetwork.load(path)
        a, b = torch.rand(4, 1, 12, 12), torch.rand(4, 1, 12, 12)
        assert torch.equal(loaded.compare(a, b), network.compare(a, b))
        assert float(loaded.threshold) == float(network.threshold) and not loaded.training

    def test_foreign_encoder_must_be_given(self, tmp_path: object) -> None:
        path = f"{tmp_path}/network.safetensors"
        network = SiameseNetwork(nn.Sequential(nn.Flatten(), nn.Linear(9, 4)), DistanceHead())
        network.save(path)
        with pytest.raises(ValueError, match="pass it as encoder="):
            SiameseNetwork.load(path)
        loaded = SiameseNetwork.load(path, encoder=nn.Sequential(nn.Flatten(), nn.Linear(9, 4)))
        x = torch.rand(2, 3, 3)
        assert torch.equal(loaded.encode(x), network.encode(x))


class TestExport:
    @pytest.mark.parametrize("head", ["koch", "koch hidden", *METRICS])
    def test_program_agrees(self, head: str) -> None:
        torch.manual_seed(0)
        network = SiameseNetwork(MLPEncoder(9, (8,), 32), HEADS[head]).eval()
        program = export_program(network, torch.zeros(2, 3, 3))
        a, b = torch.rand(5, 3, 3), torch.rand(5, 3, 3)
        torch.testing.assert_close(program.module()(a, b), network.compare(a, b))
        assert "siamese_fast" not in str(program.graph)

    @pytest.mark.skipif(
        importlib.util.find_spec("onnxscript") is None or importlib.util.find_spec("onnx") is None,
        reason="needs the extra `export`",
    )
    def test_onnx_files_are_valid(self, network: SiameseNetwork, tmp_path: object) -> None:
        import onnx
        from onnx.reference import ReferenceEvaluator

        encoder, compare = export_onnx(network, f"{tmp_path}/onnx", torch.zeros(2, 1, 12, 12))
        a, b = torch.rand(3, 1, 12, 12), torch.rand(3, 1, 12, 12)
        onnx.checker.check_model(onnx.load(encoder))
        (embeddings,) = ReferenceEvaluator(str(encoder)).run(None, {"images": a.numpy()})
        torch.testing.assert_close(torch.from_numpy(embeddings), network.encode(a), rtol=1e-4, atol=1e-5)
        (probability,) = ReferenceEvaluator(str(compare)).run(None, {"a": a.numpy(), "b": b.numpy()})
        torch.testing.assert_close(torch.from_numpy(probability), network.compare(a, b), rtol=1e-4, atol=1e-5)
