"""StarGAN v2's step on tiny networks, and runs of the command."""

import dataclasses
import functools
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import paddle
import pytest

import paddle_sam
from paddle_sam.convert.convert import convert_file, revert_file
from paddle_sam.core.images import read_image, save_image, to_network
from paddle_sam.core.weights import WeightFile
from paddle_sam.errors import ConfigError, ImageError, TrainingError
from paddle_sam.metrics import sets
from paddle_sam.metrics.features import FeatureStore
from paddle_sam.networks.face_heatmaps import FaceHeatmaps
from paddle_sam.stargan2 import options
from paddle_sam.stargan2 import protocol as stargan2_protocol
from paddle_sam.stargan2 import trainer as stargan2_trainer
from paddle_sam.stargan2.domains import DomainBatch, Domains
from paddle_sam.stargan2.options import StarGAN2Options
from paddle_sam.stargan2.protocol import Protocol, TranslationEvaluation
from paddle_sam.stargan2.system import StarGAN2
from paddle_sam.stargan2.trainer import StarGAN2Trainer, ValidationSet
from paddle_sam.training.folder import RunCheckpoints
from tests import DEVICE, ROOT
from tests.unit.training.comparing import assert_equal, records

TINY = StarGAN2Options(
    img_size=32,
    latent_dim=4,
    hidden_dim=8,
    style_dim=4,
    max_conv_dim=8,
    base_dim=4,
    w_hpf=0.0,
    lambda_ds=2.0,
    ds_iter=4,
    batch_size=2,
    lr=1e-3,
    f_lr=1e-4,
    no_fid=True,
    no_lpips=True,
)


def images(count, seed):
    return np.random.default_rng(seed).uniform(-1, 1, (count, 3, 32, 32)).astype("float32")


def held_out():
    return np.random.default_rng(4).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


def batch():
    return DomainBatch(images(2, 1), np.array([0, 1]), images(2, 2), images(2, 3), np.array([1, 1]))


def make_trainer(fan=None, **changes):
    paddle.seed(0)
    config = dataclasses.replace(TINY, **changes)
    validation = ValidationSet(held_out(), np.array([0, 1, 1]), np.array([0, 2]))
    return StarGAN2Trainer(config, fan, validation)


def parameters(networks):
    return {
        f"{name}.{key}": parameter.numpy()
        for name, network in networks.items()
        for key, parameter in network.named_parameters()
    }


def test_the_losses_are_those_of_the_paper():
    """Written out once more from the networks' outputs, before anything is updated."""
    trainer = make_trainer()
    sample = trainer._sample(batch(), 0)
    networks = trainer.networks
    x, y, target = sample.images, sample.domain, sample.target
    discriminator, generator = networks["discriminator"], networks["generator"]
    for guide in stargan2_trainer.GUIDES:
        if guide == "latent":
            style, other = (networks["mapping_network"](z, target) for z in sample.latents)
        else:
            style, other = (networks["style_encoder"](r, target) for r in sample.references)
        fake = generator(x, style)
        score = {
            "real": discriminator(x, y).numpy().astype(float),
            "fake": discriminator(fake, target).numpy().astype(float),
        }
        terms, total = trainer._judge(sample, guide)
        expected = {
            "real": np.log1p(np.exp(-score["real"])).mean(),
            "fake": np.log1p(np.exp(score["fake"])).mean(),
        }
        for name, value in expected.items():
            assert float(terms[name]) == pytest.approx(value, rel=1e-5)
        assert float(total) == pytest.approx(sum(float(t) for t in terms.values()), rel=1e-6)

        back = generator(fake, networks["style_encoder"](x, y))
        mean = {
            "adv": np.log1p(np.exp(-score["fake"])).mean(),
            "sty": np.abs((networks["style_encoder"](fake, target) - style).numpy()).mean(),
            "ds": np.abs((fake - generator(x, other)).numpy()).mean(),
            "cyc": np.abs((back - x).numpy()).mean(),
        }
        terms, total = trainer._translate(sample, guide, 0.5)
        for name, value in mean.items():
            assert float(terms[name]) == pytest.approx(value, rel=1e-4), name
        signed = mean["adv"] + mean["sty"] - 0.5 * mean["ds"] + mean["cyc"]
        assert float(total) == pytest.approx(signed, rel=1e-4)
    assert not np.array_equal(sample.latents[0], sample.latents[1])


def test_references_update_the_generator_alone():
    trainer = make_trainer()
    sample = trainer._sample(batch(), 0)
    for guide, updated in stargan2_trainer._UPDATED.items():
        before = parameters(trainer.networks)
        loss = functools.partial(trainer._translate, sample, guide, 1.0)
        trainer._update(updated, f"G/{guide}", loss)
        after = parameters(trainer.networks)
        changed = {k.split(".")[0] for k in before if not np.array_equal(before[k], after[k])}
        assert changed == set(updated)
    before = parameters(trainer.networks)
    loss = functools.partial(trainer._judge, sample, "ref")
    trainer._update(("discriminator",), "D/ref", loss)
    after = parameters(trainer.networks)
    changed = {k.split(".")[0] for k in before if not np.array_equal(before[k], after[k])}
    assert changed == {"discriminator"}


def test_the_second_image_of_the_diversity_term_gives_no_gradient():
    trainer = make_trainer(lambda_sty=0.0, lambda_cyc=0.0)
    sample = trainer._sample(batch(), 0)
    fixed = trainer.live.generator(sample.images, trainer._style(sample, "ref", 1)).detach()
    terms, _ = trainer._translate(sample, "ref", 1.0)
    terms["ds"].backward()
    found = trainer.live.generator.from_rgb.weight.grad.numpy()
    trainer.live.generator.clear_gradients()
    fake = trainer.live.generator(sample.images, trainer._style(sample, "ref", 0))
    (fake - fixed).abs().mean().backward()
    expected = trainer.live.generator.from_rgb.weight.grad.numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-7)
    assert np.abs(expected).max() > 0


def test_adam_equals_torch_with_its_coupled_weight_decay():
    torch = pytest.importorskip("torch")
    trainer = make_trainer(weight_decay=0.1)
    network = trainer.networks["style_encoder"]
    optimizer = trainer.optimizers["style_encoder"]
    copies = {
        k: torch.nn.Parameter(torch.from_numpy(v.numpy())) for k, v in network.named_parameters()
    }
    config = trainer.options
    reference = torch.optim.Adam(
        copies.values(), config.lr, (config.beta1, config.beta2), weight_decay=0.1
    )
    for seed in range(3):
        x = paddle.to_tensor(images(2, seed))
        network(x, paddle.to_tensor([0, 1])).square().sum().backward()
        for name, parameter in network.named_parameters():
            copies[name].grad = torch.from_numpy(parameter.grad.numpy())
        optimizer.step()
        reference.step()
        optimizer.clear_grad()
        for name, parameter in network.named_parameters():
            expected = copies[name].detach().numpy()
            np.testing.assert_allclose(parameter.numpy(), expected, atol=2e-6, err_msg=name)


def test_a_step_logs_every_loss_and_moves_the_averages():
    trainer = make_trainer(ema_decay=0.5)
    start = parameters(trainer.averages)
    logged = trainer.train_step(batch(), 1)
    names = {f"D/{g}_{n}" for g in ("latent", "ref") for n in ("real", "fake", "reg", "total")}
    names |= {f"G/{g}_{n}" for g in ("latent", "ref") for n in ("adv", "sty", "ds", "cyc", "total")}
    assert set(logged) == names | {"D/total", "G/total", "G/lambda_ds", "loss"}
    assert logged["G/lambda_ds"] == 1.5  # 2 falls to 0 in 4 steps, this is the second
    assert logged["G/total"] == pytest.approx(logged["G/latent_total"] + logged["G/ref_total"])
    live, average = parameters(trainer.networks), parameters(trainer.averages)
    for name, value in average.items():
        np.testing.assert_allclose(value, (start[name] + live[name]) / 2, atol=1e-7)


def test_a_loss_that_is_not_a_number_stops_the_run():
    trainer = make_trainer()
    bad = dataclasses.replace(batch(), source=np.full((2, 3, 32, 32), np.nan, "float32"))
    with pytest.raises(TrainingError, match="step 8: D/latent_real is nan"):
        trainer.train_step(bad, 7)


def test_only_what_an_update_trains_gets_gradients(monkeypatch):
    """A gradient that nobody uses costs about a fifth of a step."""
    trainer = make_trainer()
    found = []

    def step(self):
        found.append({n for n, net in trainer.networks.items() if _has_gradients(net)})

    monkeypatch.setattr(paddle.optimizer.Adam, "step", step)
    trainer.train_step(batch(), 0)
    averaged = set(stargan2_trainer.AVERAGED)
    assert found[:3] == [{"discriminator"}, {"discriminator"}, averaged]
    assert found[-1] == {"generator"}
    assert not any(p.stop_gradient for n in trainer.networks.values() for p in n.parameters())


def _has_gradients(network):
    return any(p.grad is not None and float(p.grad.abs().sum()) for p in network.parameters())


def test_masks_are_used_where_there_is_a_skip(tmp_path):
    with pytest.raises(ConfigError, match="wing_path"):
        make_trainer(w_hpf=1.0)
    trainer = make_trainer(FaceHeatmaps(8), w_hpf=1.0)
    assert [mask.shape for mask in trainer._sample(batch(), 0).masks] == [[2, 1, 256, 256]] * 2
    assert np.isfinite(trainer.train_step(batch(), 0)["loss"])
    assert set(trainer.state.weights().networks) == {*stargan2_trainer.AVERAGED, "fan"}


def test_validation_is_the_same_at_every_call_and_weighs_every_image_alike():
    trainer = make_trainer(lambda_sty=0.5, lambda_cyc=2.0)
    x, y = held_out(), np.array([0, 1, 1])
    whole = trainer.evaluate([(x, y)])
    assert whole == trainer.evaluate([(x, y)])
    parts = trainer.evaluate([(x[:2], y[:2]), (x[2:], y[2:])])
    for name, value in whole.items():
        assert parts[name] == pytest.approx(value, rel=1e-4)
    assert whole["loss"] == pytest.approx(0.5 * whole["sty"] + 2 * whole["cyc"])


def test_validation_images_travel_as_bytes(monkeypatch):
    """As on a GPU; their values are those of floats made here."""
    trainer, domains, sent = make_trainer(), np.array([0, 1, 1]), []
    expected = trainer.evaluate([(to_network(held_out()), domains)])
    panel = trainer.panel()
    real = paddle.to_tensor

    def watched(data, *arguments, **options):
        sent.append(np.asarray(data))
        return real(data, *arguments, **options)

    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    monkeypatch.setattr(paddle, "to_tensor", watched)
    assert trainer.evaluate([(held_out(), domains)]) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(trainer.panel(), panel)
    assert {array.dtype for array in sent if array.ndim == 4} == {np.dtype(np.uint8)}


def test_a_judge_adds_measures_and_may_decide_what_is_best():
    trainer = make_trainer()
    plain = trainer.evaluate([(held_out(), np.array([0, 1, 1]))])
    asked = []

    def judge(system):
        asked.append(system)
        return {"latent/FID": 3.0, "loss": 7.0}

    trainer.judge = judge
    found = trainer.evaluate([(held_out(), np.array([0, 1, 1]))])
    assert asked == [trainer.averaged]
    assert found == plain | {"latent/FID": 3.0, "loss": 7.0}


def test_the_panel_has_a_row_for_each_reference():
    panel = make_trainer().panel()
    assert panel.shape == (3 * 32, 3 * 32, 3)
    assert (panel[:32, :32] == 255).all()
    np.testing.assert_array_equal(panel[32:64, :32], panel[:32, 32:64])  # both the first image


# The protocol's measures in validation


def test_validation_measures_what_the_protocol_says(data, tmp_path, monkeypatch):
    def colours(pictures):
        return np.stack([np.r_[p.mean((0, 1)), p.std((0, 1))] for p in pictures])

    made = {}

    def open_store(path, folder, device):
        made["store"] = FeatureStore(folder, colours, {})
        return made["store"]

    monkeypatch.setattr(stargan2_protocol, "open_store", open_store)
    monkeypatch.setattr(stargan2_protocol, "diversity_store", lambda path, folder: None)
    places = {"train_img_dir": str(data / "train"), "val_img_dir": str(data / "val")}
    config = dataclasses.replace(
        TINY, **places, exp_dir=str(tmp_path), no_fid=False, num_outs_per_domain=3
    )
    domains = [Domains(data / split) for split in ("train", "val")]
    with pytest.raises(ConfigError, match="3 training images and 9 translations.* give no_fid"):
        stargan2_protocol.translation_judge(config, *domains)
    monkeypatch.setattr(stargan2_protocol, "NEIGHBOURS", 2)
    monkeypatch.setattr(sets, "precision_recall", lambda real, made: (0.5, 0.25))
    system = make_trainer().averaged
    found = stargan2_protocol.translation_judge(config, *domains)(system)
    guides = ("latent", "reference")
    assert set(found) == {
        "loss",
        *(f"{guide}/{name}" for guide in guides for name in ("FID", "KID", "precision", "recall")),
    }
    assert found["loss"] == pytest.approx((found["latent/FID"] + found["reference/FID"]) / 2)
    expected = TranslationEvaluation(
        *(system, "m", *domains, tmp_path / "again", None),
        *(FeatureStore(None, colours, {}), Protocol(3, 32, config.seed, 0)),
    ).run()
    assert found["latent/FID"] == pytest.approx(expected["latent"]["FID"]["mean"])
    # Of the folder's features only those of real images are kept, for the next validation.
    kept = [np.load(path)["digests"] for path in tmp_path.rglob("part_*.npz")]
    assert sum(map(len, kept)) == 6
    shutil.copytree(data / "train", tmp_path / "train")
    bad = tmp_path / "train" / "adults" / "1.png"
    bad.write_bytes(b"no image")
    with pytest.raises(ImageError, match=re.escape(str(bad))):  # before the first step
        stargan2_protocol.translation_judge(config, Domains(tmp_path / "train"), domains[1])
    without = dataclasses.replace(config, no_fid=True)
    assert stargan2_protocol.translation_judge(without, *domains)(system) == {}


# The command


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("domains")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for domain in ("children", "adults"):
            for index in range(3):
                image = rng.integers(0, 256, (34, 36, 3), dtype=np.uint8)
                save_image(folder / split / domain / f"{index}.png", image)
    return folder


def train(data, folder, **changes):
    values = dataclasses.asdict(TINY) | {
        "train_img_dir": str(data / "train"),
        "val_img_dir": str(data / "val"),
        "exp_dir": str(folder),
        "device": DEVICE,
        "num_workers": 0,
        "print_every": 1,
        "sample_every": 2,
        "save_every": 2,
        "eval_every": 2,
        **changes,
    }
    flags = [
        text
        for name, value in values.items()
        for text in ([f"--{name}"] if value is True else [f"--{name}", str(value)])
        if value is not False and value != ""
    ]
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "stargan2.py"), "--mode", "train", *flags],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory):
    """Four steps without a break, beyond the end of the diversity loss's decay."""
    folder = tmp_path_factory.mktemp("runs") / "straight"
    done = train(data, folder, total_iters=4, ds_iter=3)
    assert done.returncode == 0, done.stderr
    return folder


def last_checkpoint(folder):
    """The content that two equal runs share."""
    content = WeightFile.read(folder / "checkpoints" / "iteration_4.pdparams")
    content.training.pop("elapsed")
    for name in ("exp_dir", "num_workers", "total_iters", "resume_iter"):
        content.options.pop(name)
    return content


def test_domains_that_do_not_fit_are_refused_before_the_first_step(data, tmp_path):
    shutil.copytree(data / "val", tmp_path / "val")
    (tmp_path / "val" / "adults").rename(tmp_path / "val" / "grown")
    config = dataclasses.replace(
        TINY,
        train_img_dir=str(data / "train"),
        val_img_dir=str(tmp_path / "val"),
        exp_dir=str(tmp_path / "run"),
    )
    with pytest.raises(ConfigError, match="val_img_dir: .* children, grown, but train_img_dir has"):
        stargan2_trainer.train_stargan2(config)
    with pytest.raises(ConfigError, match=r"train_img_dir: .* 2 domains .*, expected 3"):
        stargan2_trainer.train_stargan2(dataclasses.replace(config, num_domains=3))


def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(data, straight, tmp_path):
    for steps in (2, 4):
        done = train(data, tmp_path, total_iters=steps, ds_iter=3, num_workers=steps // 4)
        assert done.returncode == 0, done.stderr
    assert_equal(last_checkpoint(tmp_path), last_checkpoint(straight))
    for split in ("train", "test"):
        assert records(tmp_path, split) == records(straight, split)
    assert [r["G/lambda_ds"] for r in records(straight)] == pytest.approx([2, 4 / 3, 2 / 3, 0])


def test_a_run_resumes_from_the_step_it_is_told_to(data, straight, tmp_path):
    shutil.copytree(straight, tmp_path / "copy")
    checkpoints = tmp_path / "copy" / "checkpoints"
    before = (checkpoints / "iteration_4.pdparams").read_bytes()
    done = train(data, tmp_path / "copy", total_iters=4, ds_iter=3, resume_iter=2)
    assert done.returncode == 0, done.stderr
    # The step that was gone back behind is out of the way, not lost.
    aside = checkpoints / "after_2"
    assert f"moved later checkpoints to {aside}" in done.stdout
    assert (aside / "iteration_4.pdparams").read_bytes() == before
    assert (aside / "best_model.pdparams").is_file()
    assert_equal(last_checkpoint(tmp_path / "copy"), last_checkpoint(straight))
    assert [r["step"] for r in records(tmp_path / "copy")] == [1, 2, 3, 4]


def test_going_back_twice_keeps_both_futures(tmp_path):
    checkpoints = RunCheckpoints(tmp_path)
    assert checkpoints.set_aside(5) is None
    for step in (2, 10, 20):
        checkpoints.save(step, WeightFile("x"))
    assert checkpoints.set_aside(2).name == "after_2"
    assert checkpoints.latest().name == "iteration_2.pdparams"
    checkpoints.save(10, WeightFile("x"))
    assert checkpoints.set_aside(2).name == "after_2_2"
    kept = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.pdparams"))
    names = ("after_2/iteration_10", "after_2/iteration_20", "after_2_2/iteration_10")
    assert kept == [f"{name}.pdparams" for name in (*names, "iteration_2")]


def test_a_run_that_cannot_be_resumed_says_why(data, straight):
    done = train(data, straight, total_iters=4, ds_iter=3, resume_iter=3)
    assert done.returncode == 2
    assert "iteration_3.pdparams does not exist" in done.stderr
    done = train(data, straight, total_iters=4, ds_iter=5)
    assert done.returncode == 2
    assert "--ds_iter was 3, is 5" in done.stderr


def test_a_run_leaves_curves_and_pictures_with_plain_names(straight):
    names = [path.name for path in straight.rglob("*")]
    assert not [name for name in names if set(name) & set('<>:"|?*\\')]
    panel = read_image(straight / "images" / "test" / "faces" / "0000004.jpg")
    assert panel.shape == (7 * 32, 7 * 32, 3)  # three images of each domain
    assert [r["step"] for r in records(straight, "test")] == [2, 4]
    assert list((straight / "visualdl").iterdir())


def test_checkpoints_are_weight_files_and_convert_to_the_published_layout(straight, tmp_path):
    torch = pytest.importorskip("torch")
    path = straight / "checkpoints" / "iteration_4.pdparams"
    system = StarGAN2.from_file(path, device=DEVICE)
    assert (system.img_size, system.num_domains) == (32, 2)
    revert_file(path, tmp_path / "nets_ema.ckpt")
    content = torch.load(tmp_path / "nets_ema.ckpt", weights_only=True)
    assert set(content) >= {"generator", "mapping_network", "style_encoder"}
    convert_file(tmp_path / "nets_ema.ckpt", tmp_path / "again.pdparams")
    again = paddle_sam.load(tmp_path / "again.pdparams", part="generator", device=DEVICE)
    for name, tensor in system.generator.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), again.state_dict()[name].numpy())


def test_presets_are_the_published_settings():
    def config(*argv):
        return options.read_command_line(["--mode", "train", *argv], "")

    faces, animals = config("--preset", "celeba_hq"), config("--preset", "afhq")
    assert (faces.num_domains, faces.w_hpf, faces.lambda_ds) == (2, 1.0, 1.0)
    assert (animals.num_domains, animals.w_hpf, animals.lambda_ds) == (3, 0.0, 2.0)
    for each in (faces, animals):
        assert (each.lr, each.f_lr, each.beta1, each.beta2) == (1e-4, 1e-6, 0.0, 0.99)
        assert (each.batch_size, each.total_iters, each.ds_iter) == (8, 100_000, 100_000)
    assert config("--preset", "afhq", "--lambda_ds", "1.5").lambda_ds == 1.5
    report = config("--preset", "report")
    assert (report.total_iters, report.ds_iter, report.batch_size) == (500_000, 500_000, 4)
    assert (report.save_every, report.num_domains, report.w_hpf) == (5000, 2, 1.0)
    with pytest.raises(ConfigError, match="randcrop_prob: expected at most 1"):
        config("--randcrop_prob", "2")
    with pytest.raises(ConfigError, match="ema_decay: expected less than 1"):
        config("--ema_decay", "1")
