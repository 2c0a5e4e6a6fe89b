"""StarGAN v2's training: a whole run from its options, and its step.

Choi et al. 2020 (arXiv 1912.01865), section 3 and appendix B. A step makes four updates, in the
published order: discriminator with latents, discriminator with references, then generator,
mapping network and style encoder with latents, and the generator alone with references.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import paddle
from tqdm import tqdm

from paddle_sam.core.files import check_outside
from paddle_sam.core.processes import batches
from paddle_sam.core.weights import WeightFile, locate
from paddle_sam.imagesets.loader import identify_images, to_device
from paddle_sam.networks import stargan2
from paddle_sam.networks.face_heatmaps import FaceHeatmaps
from paddle_sam.networks.load import held, trained
from paddle_sam.stargan2.domains import DomainBatch, DomainLoader, Domains, read_domains
from paddle_sam.stargan2.options import StarGAN2Options
from paddle_sam.stargan2.protocol import translation_judge
from paddle_sam.stargan2.system import PARTS, StarGAN2, load_fan, translation_matrix
from paddle_sam.training.distributed import (
    GradientMeans,
    World,
    check_finite,
    read_values,
    send_from_first,
)
from paddle_sam.training.folder import identify_file, numbered
from paddle_sam.training.run import Intervals, Job, start_run
from paddle_sam.training.trainers import (
    RunState,
    averaged_copy,
    distance,
    diversity_weight,
    logistic,
    r1_penalty,
    update_average,
)

AVERAGED = tuple(PARTS)
GUIDES = ("latent", "ref")
# What each guide's generator half updates.
_UPDATED = {"latent": AVERAGED, "ref": ("generator",)}
_LATENTS, _TEST_LATENTS = 13, 14  # streams of random numbers
_SHOWN_PER_DOMAIN = 3
_ADVICE = "Resume from the last checkpoint with a smaller --lr in a new --exp_dir."

# Terms of a loss by name, and what to descend: their weighted sum.
Found = tuple[dict[str, paddle.Tensor], paddle.Tensor]


def train_stargan2(options: StarGAN2Options) -> Path:
    """Train, or resume training, in `options.exp_dir`; returns that folder. See `start_run`."""
    options = numbered(options)
    domains = Domains(options.train_img_dir, "train_img_dir")
    held_out = Domains(options.val_img_dir, "val_img_dir")
    domains.expect(options.num_domains)
    held_out.expect_names_of(domains)

    every = (options.print_every, options.sample_every, options.eval_every, options.save_every)

    def build(world: World, resumed: WeightFile | None) -> Job:
        images, numbers = read_domains(held_out, options.img_size, options.max_val_images)
        firsts = [np.flatnonzero(numbers == n)[:_SHOWN_PER_DOMAIN] for n in range(len(held_out))]
        validation = ValidationSet(images, numbers, np.concatenate(firsts))
        judge = translation_judge(options, domains, held_out) if world.rank == 0 else None
        fan = load_fan(options.wing_path, options.device) if options.w_hpf > 0 else None
        return Job(
            StarGAN2Trainer(options, fan, validation, world, judge),
            Intervals(options.total_iters, *every),
            DomainLoader(
                domains,
                options.img_size,
                options.randcrop_prob,
                options.num_workers,
                options.max_bad_images,
                report=tqdm.write,
            ),
            lambda: zip(
                batches(validation.images, options.val_batch_size),
                batches(validation.domains, options.val_batch_size),
                strict=True,
            ),
        )

    inputs = {}
    for data in (domains, held_out):
        check_outside("--exp_dir", Path(options.exp_dir), data.root)
        images = [image for files in data.files for image in files]
        facts = list(zip(data.names, map(len, data.files), strict=True))
        inputs[data.option] = identify_images(str(data.root), images, facts)
    if options.w_hpf > 0:
        inputs["wing_path"] = identify_file(locate(options.wing_path))
    return start_run(options, build, inputs, options.resume_iter or None)


@dataclasses.dataclass(frozen=True)
class ValidationSet:
    """Held-out images uint8 [N, S, S, 3], their domains [N], and which of them the panels show."""

    images: np.ndarray
    domains: np.ndarray
    shown: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Sample:
    """A step's tensors; `latents` and `references` are pairs, the second for diversity."""

    images: paddle.Tensor
    domain: paddle.Tensor
    target: paddle.Tensor
    latents: tuple[paddle.Tensor, paddle.Tensor]
    references: tuple[paddle.Tensor, paddle.Tensor]
    masks: tuple[paddle.Tensor, paddle.Tensor] | None


def network_archs(options: StarGAN2Options) -> dict[str, dict]:
    """Constructor arguments of the trained networks."""
    size = {
        "img_size": options.img_size,
        "max_conv_dim": options.max_conv_dim,
        "base_dim": options.base_dim or stargan2.published_width(options.img_size),
    }
    style, domains = {"style_dim": options.style_dim}, {"num_domains": options.num_domains}
    return {
        "generator": {**size, **style, "w_hpf": options.w_hpf},
        "mapping_network": {
            "latent_dim": options.latent_dim,
            "width": options.hidden_dim,
            **style,
            **domains,
        },
        "style_encoder": {**size, **style, **domains},
        "discriminator": {**size, **domains},
    }


class StarGAN2Trainer:
    """Trains four networks, which it makes from Paddle's random numbers, and averages three.

    Args:
        options: the run's options.
        fan: the face alignment network; needed where `w_hpf` is above 0.
        validation: what panels and validations are made from.
        world: the processes of the run.
        judge: further measures by name of the averaged networks, for validations. A measure `loss`
            among them decides which model is the best, instead of the losses.
    """

    def __init__(
        self,
        options: StarGAN2Options,
        fan: FaceHeatmaps | None,
        validation: ValidationSet,
        world: World | None = None,
        judge: Callable[[StarGAN2], dict[str, float]] | None = None,
    ):
        self.options = options
        self.learning_rate = options.lr
        self.world = world or World()
        self.validation = validation
        self.judge = judge or (lambda system: {})
        archs, builders = network_archs(options), {**PARTS, "discriminator": stargan2.Discriminator}
        self.networks = {name: builders[name](**arch) for name, arch in archs.items()}
        for network in self.networks.values():
            send_from_first(network.state_dict().values(), self.world)
        self.averages = {name: averaged_copy(self.networks[name]) for name in AVERAGED}
        self.live = StarGAN2(*(self.networks[name] for name in AVERAGED), fan)
        self.averaged = StarGAN2(*self.averages.values(), fan)
        self.optimizers = {
            name: paddle.optimizer.Adam(
                options.f_lr if name == "mapping_network" else options.lr,
                options.beta1,
                options.beta2,
                parameters=trained(network),
                weight_decay=options.weight_decay,
            )
            for name, network in self.networks.items()
        }
        self.means = {}
        for names in (("discriminator",), *_UPDATED.values()):
            parameters = [p for name in names for p in self.networks[name].parameters()]
            self.means[names] = GradientMeans(parameters, self.world)
        self.state = RunState(lambda: WeightFile("stargan2", options=dataclasses.asdict(options)))
        for name, average in self.averages.items():
            self.state.network(name, average, f"stargan2_{name}", archs[name])
        if self.live.fan is not None:
            channels = self.live.fan.conv_last0.weight.shape[0]
            self.state.network("fan", self.live.fan, "face_heatmaps", {"channels": channels})
        for name, network in self.networks.items():
            self.state.layer(f"networks/{name}", network)
            self.state.optimizer(f"optimizers/{name}", self.optimizers[name], network)

    def train_step(self, batch: DomainBatch, step: int) -> dict[str, float]:
        """Do a step; returns the losses of discriminator (`D/`) and generator (`G/`), by guide and
        in total. See `run.Trainer`.
        """
        sample = self._sample(batch, step)
        factor = diversity_weight(self.options.lambda_ds, step, self.options.ds_iter)
        values: dict[str, paddle.Tensor] = {}
        for guide in GUIDES:
            loss = functools.partial(self._judge, sample, guide)
            values |= self._update(("discriminator",), f"D/{guide}", loss)
        for guide in GUIDES:
            loss = functools.partial(self._translate, sample, guide, factor)
            values |= self._update(_UPDATED[guide], f"G/{guide}", loss)
        logged = read_values(values, self.world)
        check_finite(logged, step, _ADVICE)
        for name, average in self.averages.items():
            update_average(average, self.networks[name], self.options.ema_decay)
        for half in ("D", "G"):
            logged[f"{half}/total"] = sum(logged[f"{half}/{guide}_total"] for guide in GUIDES)
        return logged | {
            "G/lambda_ds": factor,
            "loss": logged["D/total"] + logged["G/total"],
        }

    def _judge(self, sample: _Sample, guide: str) -> Found:
        """Return the discriminator's losses (eq. 1 and R1) and their weighted sum."""
        discriminator = self.networks["discriminator"]
        images = sample.images.detach()
        images.stop_gradient = False
        logits = discriminator(images, sample.domain)
        with paddle.no_grad():
            fake = self.live.generator(sample.images, self._style(sample, guide, 0), sample.masks)
        terms = {
            "real": logistic(logits, real=True).mean(),
            "fake": logistic(discriminator(fake, sample.target), real=False).mean(),
            "reg": r1_penalty(logits, images).mean(),
        }
        return terms, terms["real"] + terms["fake"] + self.options.lambda_reg * terms["reg"]

    def _translate(self, sample: _Sample, guide: str, diversity_factor: float) -> Found:
        """Return the generator's losses (eq. 1 to 4) and their weighted sum (eq. 5)."""
        generator, style_encoder = self.live.generator, self.live.style_encoder
        style = self._style(sample, guide, 0)
        fake = generator(sample.images, style, sample.masks)
        logits = self.networks["discriminator"](fake, sample.target)
        with paddle.no_grad():
            other = generator(sample.images, self._style(sample, guide, 1), sample.masks)
        own_style = style_encoder(sample.images, sample.domain)
        back = generator(fake, own_style, self.live.masks(fake.detach()))
        terms = {
            "adv": logistic(logits, real=True).mean(),
            "sty": distance(style_encoder(fake, sample.target), style).mean(),
            "ds": distance(fake, other).mean(),
            "cyc": distance(back, sample.images).mean(),
        }
        total = (
            terms["adv"]
            + self.options.lambda_sty * terms["sty"]
            - diversity_factor * terms["ds"]
            + self.options.lambda_cyc * terms["cyc"]
        )
        return terms, total

    def _style(self, sample: _Sample, guide: str, which: int) -> paddle.Tensor:
        if guide == "latent":
            return self.live.mapping_network(sample.latents[which], sample.target)
        return self.live.style_encoder(sample.references[which], sample.target)

    def _update(
        self, names: Sequence[str], prefix: str, loss: Callable[[], Found]
    ) -> dict[str, paddle.Tensor]:
        """Step the optimizers of `names` down the gradient of a loss; returns values to log."""
        means = self.means[tuple(names)]
        with held(*(network for name, network in self.networks.items() if name not in names)):
            terms, total = loss()
            with means.sending():
                total.backward()
        means.finish()
        for name in names:
            self.optimizers[name].step()
            self.optimizers[name].clear_grad(set_to_zero=False)
        return {f"{prefix}_{name}": term for name, term in {**terms, "total": total}.items()}

    def _sample(self, batch: DomainBatch, step: int) -> _Sample:
        size = [self.options.batch_size, self.options.latent_dim]
        mine = self.world.share(self.options.batch_size)
        rng = np.random.default_rng((self.options.seed, _LATENTS, step))
        latents = (rng.standard_normal(size, np.float32)[mine] for _ in range(2))
        images = to_device(batch.source)
        return _Sample(
            images=images,
            domain=paddle.to_tensor(batch.source_domain),
            target=paddle.to_tensor(batch.target_domain),
            latents=tuple(paddle.to_tensor(z) for z in latents),
            references=tuple(map(to_device, (batch.reference, batch.other_reference))),
            masks=self.live.masks(images),
        )

    @paddle.no_grad()
    def evaluate(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
        """Judge the averaged networks on (images, domains), uint8 [N, S, S, 3] and int64 [N].

        Every image goes to the next domain, with latents that are the same at every call, and
        back: `sty` and `cyc` say how well styles and images return. `loss` is the weighted sum.
        `judge` adds measures of its own.
        """
        system, options = self.averaged, self.options
        rng = np.random.default_rng((options.seed, _TEST_LATENTS))
        found: dict[str, list[np.ndarray]] = {"sty": [], "cyc": []}
        for array, domains in batches:
            images, domain = to_device(array), paddle.to_tensor(domains)
            target = (domain + 1) % options.num_domains
            z = rng.standard_normal([len(array), options.latent_dim], np.float32)
            style = system.mapping_network(paddle.to_tensor(z), target)
            fake = system.translate(images, style)
            back = system.translate(fake, system.style_encoder(images, domain))
            found["sty"].append(distance(system.style_encoder(fake, target), style).numpy())
            found["cyc"].append(distance(back, images).numpy())
        means = {name: float(np.concatenate(values).mean()) for name, values in found.items()}
        loss = options.lambda_sty * means["sty"] + options.lambda_cyc * means["cyc"]
        return means | {"loss": loss} | self.judge(system)

    def panel(self) -> np.ndarray:
        """Held-out images in each other's styles, by the averaged networks."""
        chosen = self.validation.shown
        images, domains = self.validation.images[chosen], self.validation.domains[chosen]
        return translation_matrix(self.averaged, images, images, domains)
