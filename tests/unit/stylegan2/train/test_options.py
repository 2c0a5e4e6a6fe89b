"""Options of StyleGAN2 training: presets, stages, what cannot work."""

import dataclasses
from pathlib import Path

import pytest

from paddle_sam.core.command import parse
from paddle_sam.errors import ConfigError
from paddle_sam.options import check_resumable
from paddle_sam.stylegan2.train.options import StyleGAN2Options

SMALL = StyleGAN2Options(resolution=16, batch_size=4)


def config_of(*argv):
    return parse(StyleGAN2Options, argv, "")


def test_presets_follow_resolution_and_batch():
    auto = config_of("--resolution", "256")
    assert (auto.batch_size, auto.channel_base, auto.mapping_layers) == (16, 16384, 2)
    assert auto.r1_gamma == pytest.approx(0.0002 * 256**2 / 16)
    large = config_of("--resolution", "1024", "--batch_size", "8")
    assert (large.g_lr, large.d_lr, large.channel_base) == (0.002, 0.002, 32768)
    assert large.r1_gamma == pytest.approx(0.0002 * 1024**2 / 8)
    assert large.ema_kimg == 2.5
    paper = config_of("--preset", "stylegan2")
    assert (paper.r1_gamma, paper.d_lr, paper.mapping_layers) == (10.0, 0.002, 8)
    assert config_of("--preset", "mini", "--r1_gamma", "3").r1_gamma == 3
    assert config_of() == StyleGAN2Options(mapping_layers=2, channel_base=16384)


@pytest.mark.parametrize(
    ("preset", "expected"),
    # As the ADA paper's configurations are published.
    [
        ("paper256", (256, 64, 8, 16384, 0.0025, 1.0, 20.0)),
        ("paper512", (512, 64, 8, 32768, 0.0025, 0.5, 20.0)),
        ("paper1024", (1024, 32, 4, 32768, 0.002, 2.0, 10.0)),
        ("stylegan2", (1024, 32, 4, 32768, 0.002, 10.0, 10.0)),
    ],
)
def test_published_presets(preset, expected):
    config = config_of("--preset", preset)
    assert expected == (
        *(config.resolution, config.batch_size, config.mbstd_group, config.channel_base),
        *(config.g_lr, config.r1_gamma, config.ema_kimg),
    )
    assert (config.d_lr, config.mapping_layers, config.ema_rampup) == (config.g_lr, 8, 0)


def test_a_transfer_averages_from_the_start_and_reacts_soon():
    auto = config_of("--init_from", "x")
    assert (auto.ema_rampup, auto.ada_kimg, auto.stages) == (0, 100, "")
    mini = config_of("--preset", "mini", "--init_from", "x")
    assert (mini.ema_rampup, mini.ada_kimg, mini.stages) == (0, 50, "")
    own = config_of("--preset", "mini", "--init_from", "x", "--ada_kimg", "7", "--stages", "8:1")
    assert (own.ada_kimg, own.stages) == (7, "8:1")
    assert config_of("--preset", "mini").ema_rampup == 0.05


def test_stages_follow_the_images_trained_on():
    config = dataclasses.replace(SMALL, resolution=32, stages="8:0.008,16:0.004")
    assert [config.size_at(4 * step) for step in range(5)] == [8, 8, 16, 32, 32]
    assert config.steps(0.008) == 2
    # A stage may be made longer while it lasts.
    check_resumable(config, dataclasses.replace(config, stages="8:0.008,16:0.04"), Path("run"))
    assert config.steps(0.0) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": 48}, "resolution: expected a power of two, found 48"),
        ({"style_mixing": 1.5}, "style_mixing: expected at most 1, found 1.5"),
        ({"augment_p": 2.0}, "augment_p: expected at most 1"),
        ({"resume": "newest"}, "resume: expected latest or a step, found 'newest'"),
        ({"stages": "8"}, "stages: expected SIZE:KIMG,..., found '8'"),
        ({"stages": "16:1"}, "stages: expected rising powers of two from 8 and below resolution"),
        ({"stages": "8:-1"}, "stages: expected .* none with a KIMG below 0, found 8:-1"),
        ({"stage_batches": "32:4"}, "stage_batches: expected .*, found 32:4"),
        ({"stage_batches": "16:0"}, "stage_batches: expected .*, found 16:0"),
        ({"stage_batches": "16:2.5"}, "stage_batches: expected .*, found 16:2.5"),
        ({"stage_rates": "16"}, "stage_rates: expected SIZE:RATE,..., found '16'"),
        ({"stage_rates": "32:0.1"}, "stage_rates: expected rates of sizes of .*, found 32:0.1"),
        ({"freeze_d": 1}, "freeze_d: expected with init_from and without stages"),
        ({"augment_ops": "blit,noise"}, "augment_ops: expected some of .*, found 'noise'"),
        ({"augment_ops": ""}, "augment_ops: expected some of .*, found none"),
        ({"augment": "fixed"}, "augment_p: expected more than 0 with augment fixed"),
        (
            {"augment": "none", "augment_p": 0.2},
            "augment_p: expected 0 with augment none, found 0.2",
        ),
    ],
)
def test_options_that_cannot_work(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(SMALL, **changes)
