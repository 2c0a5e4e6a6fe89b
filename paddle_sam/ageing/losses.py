"""What SAM is trained with: identity, pixels, perception, latent norm and age.

Alaluf et al. 2021 (arXiv 2102.02754), section 3.2. Every loss here gives one value per image,
[N]; training minimises the mean. A loss of several images is therefore the mean over any parts
that the batch is cut into, which lets a trainer render and judge a few images at a time.

The input is compared with two outputs (the aged face and the one recovered from it). What
depends on the input alone is computed once, in `SAMLoss.reference`.
"""

from __future__ import annotations

import dataclasses
import math

import paddle
import paddle.nn.functional as F

from paddle_sam.errors import ConfigError, check_shape
from paddle_sam.networks.face_networks import AgeRegressor, FaceEmbedder, cosine, face_region
from paddle_sam.networks.image_features import LPIPS, SelfSupervisedFeatures
from paddle_sam.networks.load import freeze

MAX_AGE = 100.0


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """Factors of the losses in their sum; a loss of factor 0 is not computed.

    The defaults are the published ones. `*_aging` replaces its namesake where the age changes.
    """

    id: float = 0.1
    l2: float = 0.25
    l2_aging: float = 0.25
    l2_crop: float = 1.0
    lpips: float = 0.1
    lpips_aging: float = 0.1
    lpips_crop: float = 0.6
    w_norm: float = 0.005
    aging: float = 5.0
    moco: float = 0.0


def l2(output: paddle.Tensor, target: paddle.Tensor) -> paddle.Tensor:
    """Mean squared difference of images [N, C, H, W], per image: [N] (eq. 7)."""
    # Axis by axis: on the CPU Paddle adds up in sequence, and one sum over all pixels of a 256 px
    # image is off by 4e-5.
    return (output - target).square().mean(axis=3).mean(axis=2).mean(axis=1)


def identity_weights(target: paddle.Tensor, source: paddle.Tensor) -> paddle.Tensor:
    """How much identity counts where the age moves from `source` to `target` (eq. 10).

        w = 0.25 cos(pi |target - source|) + 0.75

    Both [N] as fractions of a century; 1 for no change down to 0.5 for a whole century.
    """
    return 0.25 * paddle.cos(math.pi * (target - source).abs()) + 0.75


def latent_norm(w_plus: paddle.Tensor, latent_avg: paddle.Tensor | None) -> paddle.Tensor:
    """Euclidean norm [N] of codes [N, L, D], relative to `latent_avg` [L, D] if given (eq. 9)."""
    offset = w_plus if latent_avg is None else w_plus - latent_avg
    return offset.square().sum(axis=[1, 2]).sqrt()


def age_error(predicted: paddle.Tensor, target: paddle.Tensor) -> paddle.Tensor:
    """Squared difference [N] of ages [N], both as fractions of a century (eq. 11)."""
    return (predicted - target).square()


@dataclasses.dataclass(frozen=True)
class Reference:
    """What is known of a batch before anything is rendered; nothing in it carries gradients."""

    target: paddle.Tensor  # images the output should resemble, [N, 3, S, S]
    age: paddle.Tensor | None  # predicted age of the input, fraction of a century, [N]
    embedding: paddle.Tensor | None  # identity of the target, [N, E]
    input_embedding: paddle.Tensor | None  # identity of the input, [N, E]
    activations: list[paddle.Tensor] | None  # LPIPS activations of the target
    face_activations: list[paddle.Tensor] | None  # the same of its face region
    features: paddle.Tensor | None = None  # self-supervised features of the target, [N, F]
    input_features: paddle.Tensor | None = None  # the same of the input

    def part(self, start: int, stop: int) -> Reference:
        """The reference of images start..stop-1."""

        def cut(value):
            if value is None:
                return None
            return [t[start:stop] for t in value] if isinstance(value, list) else value[start:stop]

        return Reference(*(cut(getattr(self, f.name)) for f in dataclasses.fields(self)))


class Judgement:
    """Losses of one batch: the weighted sum to minimise, and what to log about it.

    total: [N], carries gradients. terms: unweighted values [N] by name, without gradients.
    captions: similarities and ages in years [N], without gradients.
    """

    def __init__(self):
        self.total = 0.0
        self.terms: dict[str, paddle.Tensor] = {}
        self.captions: dict[str, paddle.Tensor] = {}

    def add(self, name: str, factor: float, values: paddle.Tensor) -> None:
        """Add a loss [N] to the sum, times its factor."""
        self.total = self.total + factor * values
        self.terms[f"loss_{name}"] = values.detach()

    def note(self, name: str, values: paddle.Tensor) -> None:
        """Log values [N] with each image."""
        self.captions[name] = values.detach()

    def compare(self, output, target, source) -> None:
        """Log how alike the embeddings [N, E] of output, target and input are."""
        views = cosine(target, source)
        similarity = cosine(output, target)
        self.note("diff_target", similarity)
        self.note("diff_input", cosine(output, source))
        self.note("diff_views", views)
        self.terms["id_improve"] = (similarity - views).detach()


@dataclasses.dataclass(eq=False)
class SAMLoss:
    """The weighted sum of SAM's losses, with the frozen networks they need.

    Args:
        weights: factors of the losses.
        lpips: needed where an LPIPS factor is above 0.
        embedder: identity network; needed where the identity factor is above 0.
        age_regressor: needed where the ageing factor is above 0.
        latent_avg: [L, D], what the norm of codes is relative to; None for the origin.
        weigh_identity: use `identity_weights`.
        features: self-supervised features; needed where their factor is above 0.

    The networks are put in eval mode and their parameters take no gradient.
    """

    weights: LossWeights
    lpips: LPIPS | None = None
    embedder: FaceEmbedder | None = None
    age_regressor: AgeRegressor | None = None
    latent_avg: paddle.Tensor | None = None
    weigh_identity: bool = False
    features: SelfSupervisedFeatures | None = None

    def __post_init__(self):
        weights = self.weights
        for factor, network, option in (
            (weights.id, self.embedder, "id_lambda"),
            (weights.moco, self.features, "moco_lambda"),
            (weights.aging, self.age_regressor, "aging_lambda"),
            (max(weights.lpips, weights.lpips_crop), self.lpips, "lpips_lambda"),
        ):
            if factor > 0 and network is None:
                raise ConfigError(f"{option}: is {factor}, but there is no network to compute it")
        if self.weigh_identity and self.age_regressor is None:
            raise ConfigError("use_weighted_id_loss: needs the age regressor")
        for network in (self.lpips, self.embedder, self.age_regressor, self.features):
            if network is not None:
                network.eval()
                freeze(network)

    @paddle.no_grad()
    def reference(self, images: paddle.Tensor, target: paddle.Tensor | None = None) -> Reference:
        """Everything about the input `images` and the `target` images, all [N, 3, S, S] in [-1, 1].

        In SAM the target is the input itself; leave it out then, and nothing is done twice.
        """
        check_shape("images", images, (None, 3, None, None))
        same = target is None
        target = images if same else target
        weights = self.weights
        embedding = self.embed(target) if weights.id > 0 else None
        features = self.features(target) if weights.moco > 0 else None
        return Reference(
            target=target,
            age=None if self.age_regressor is None else self.age(images),
            embedding=embedding,
            input_embedding=embedding if same or embedding is None else self.embed(images),
            activations=self.lpips.extract(target) if weights.lpips > 0 else None,
            face_activations=(
                self.lpips.extract(face_region(target)) if weights.lpips_crop > 0 else None
            ),
            features=features,
            input_features=features if same or features is None else self.features(images),
        )

    def embed(self, images: paddle.Tensor) -> paddle.Tensor:
        """Identity embeddings [N, E] of the face region, average-pooled to the network's input."""
        face = F.adaptive_avg_pool2d(face_region(images), self.embedder.input_size)
        return self.embedder(face)

    def age(self, images: paddle.Tensor) -> paddle.Tensor:
        """Predicted ages [N] as fractions of a century."""
        return self.age_regressor.age(images) / MAX_AGE

    def __call__(
        self,
        output: paddle.Tensor,
        w_plus: paddle.Tensor,
        reference: Reference,
        target_age: paddle.Tensor | None = None,
        age_changes: bool = False,
    ) -> Judgement:
        """Judge rendered images.

        Args:
            output: [N, 3, S, S], pooled to the size of the reference images.
            w_plus: their codes [N, L, D].
            reference: `reference(...)` of the same batch.
            target_age: [N], fractions of a century; may be None where no loss needs it.
            age_changes: apply the `*_aging` factors.
        """
        weights = self.weights
        judged = Judgement()
        if weights.id > 0:
            self._judge_identity(judged, output, reference, target_age)
        if weights.moco > 0:
            self._judge_features(judged, output, reference)
        if weights.l2 > 0:
            factor = weights.l2_aging if age_changes else weights.l2
            judged.add("l2", factor, l2(output, reference.target))
        if weights.lpips > 0:
            factor = weights.lpips_aging if age_changes else weights.lpips
            activations = self.lpips.extract(output)
            judged.add("lpips", factor, self.lpips.distance(activations, reference.activations))
        if weights.lpips_crop > 0:
            activations = self.lpips.extract(face_region(output))
            distance = self.lpips.distance(activations, reference.face_activations)
            judged.add("lpips_crop", weights.lpips_crop, distance)
        if weights.l2_crop > 0:
            face, target_face = face_region(output), face_region(reference.target)
            judged.add("l2_crop", weights.l2_crop, l2(face, target_face))
        if weights.w_norm > 0:
            judged.add("w_norm", weights.w_norm, latent_norm(w_plus, self.latent_avg))
        if weights.aging > 0:
            self._judge_age(judged, output, reference, target_age)
        return judged

    def _judge_identity(self, judged: Judgement, output, reference: Reference, target_age) -> None:
        embedding = self.embed(output)
        similarity = cosine(embedding, reference.embedding)
        loss = 1 - similarity
        if self.weigh_identity:
            loss = loss * identity_weights(target_age, reference.age)
        judged.add("id", self.weights.id, loss)
        judged.compare(embedding, reference.embedding, reference.input_embedding)

    def _judge_features(self, judged: Judgement, output, reference: Reference) -> None:
        """1 - cosine of self-supervised features, in the place of identity."""
        features = self.features(output)
        judged.add("moco", self.weights.moco, 1 - cosine(features, reference.features))
        judged.compare(features, reference.features, reference.input_features)

    def _judge_age(self, judged: Judgement, output, reference: Reference, target_age) -> None:
        age = self.age(output)
        judged.add("aging", self.weights.aging, age_error(age, target_age))
        judged.terms["age_error_years"] = (age - target_age).abs().detach() * MAX_AGE
        judged.note("input_age", reference.age * MAX_AGE)
        judged.note("output_age", age * MAX_AGE)
        judged.note("target_age", target_age * MAX_AGE)
