import numpy as np
import paddle
import pytest

from paddle_sam.ageing.train.options import SAMOptions
from paddle_sam.ageing.train.run import assemble, build_loss, new_encoder, weight_path
from paddle_sam.core.weights import NetworkEntry, WeightFile
from paddle_sam.errors import CheckpointError, ConfigError
from tests.unit.training import tiny


def _config(files, **changes):
    return SAMOptions(**tiny.options(files, **changes))


def _state(path, kind):
    return WeightFile.read(path).networks[kind].state


def test_the_encoder_starts_from_the_rgb_filters_with_a_random_age_channel(files):
    network = assemble(_config(files)).network
    psp = _state(files / "psp.pdparams", "psp")
    found = network.encoder.input_layer[0].weight.numpy()
    np.testing.assert_array_equal(found[:, :3], psp["encoder.input_layer.0.weight"])
    assert 0.5 < found[:, 3].std() < 1.5
    body = "body.2.res_layer.1.weight"
    encoder = tiny.state(network.encoder)
    np.testing.assert_array_equal(encoder[body], psp[f"encoder.{body}"])
    head = "styles.0.convs.0.weight"
    assert not np.array_equal(encoder[head], psp[f"encoder.{head}"])


def test_frozen_parts_come_from_their_files(files):
    network = assemble(_config(files)).network
    psp = _state(files / "psp.pdparams", "psp")
    for name, array in tiny.state(network.pretrained_encoder).items():
        np.testing.assert_array_equal(array, psp[f"encoder.{name}"])
    generator = WeightFile.read(files / "stylegan2.pdparams")
    for name, array in tiny.state(network.decoder).items():
        np.testing.assert_array_equal(array, generator.networks["g_ema"].state[name])
    for row in network.latent_avg.numpy():
        np.testing.assert_array_equal(row, generator.latent_avg)


def test_only_what_trains_takes_gradients(files):
    network = assemble(_config(files)).network
    trained = {name for name, p in network.named_parameters() if not p.stop_gradient}
    assert trained
    assert all(name.startswith("encoder.") for name in trained)
    network = assemble(_config(files, train_decoder=True)).network
    assert any(
        n.startswith("decoder.") for n, p in network.named_parameters() if not p.stop_gradient
    )


def test_the_published_encoder_starts_from_the_identity_network(files, tmp_path):
    """Published sizes: IR-SE50, whose body an identity network of any head has."""
    from paddle_sam.ageing.train.run import start_encoder
    from paddle_sam.core.weights import WeightFile
    from paddle_sam.networks.face_networks import FaceEmbedder
    from paddle_sam.networks.sam import GradualStyleEncoder

    paddle.seed(3)
    arch = {"input_size": 32, "embedding_dim": 4}
    entry = NetworkEntry.of("face_embedder", arch, FaceEmbedder(**arch))
    path = tmp_path / "ir.pdparams"
    WeightFile("ir_se50", {"ir_se50": entry}).write(path)
    encoder = GradualStyleEncoder(32, 4, 1)
    start_encoder(encoder, WeightFile.read(path).entry(), str(path))
    found = tiny.state(encoder)
    for name in ("body.23.res_layer.5.fc1.weight", "input_layer.1._mean"):
        np.testing.assert_array_equal(found[name], entry.state[name])
    rgb = found["input_layer.0.weight"][:, :3]
    np.testing.assert_array_equal(rgb, entry.state["input_layer.0.weight"])


def test_anew_encoder_fits_its_generator():
    published = new_encoder({"size": 1024, "style_dim": 512})
    assert published["widths"] == [64, 128, 256, 512]
    assert (published["input_size"], published["n_styles"], published["stem"]) == (256, 18, 64)
    assert sum(published["units"]) == 24
    small = new_encoder({"size": 64, "style_dim": 128})
    assert (small["widths"], small["input_size"], small["n_styles"]) == ([16, 32, 64, 128], 64, 10)


def test_a_sam_checkpoint_is_taken_whole(files, tmp_path):
    trainer = tiny.trainer(files)
    path = tmp_path / "sam.pdparams"
    trainer.state.weights().write(path)
    network = assemble(_config(files, checkpoint_path=str(path))).network
    found, wanted = tiny.state(network), tiny.state(trainer.network)
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"output_size": 64}, ConfigError, "the generator renders 32 pixels"),
        (
            {"pretrained_psp_path": "stylegan2.pdparams"},
            CheckpointError,
            "holds stylegan2, expected psp or sam",
        ),
        ({"checkpoint_path": "psp.pdparams"}, CheckpointError, "holds psp, expected sam"),
        (
            {"stylegan_weights": "gone.pdparams"},
            CheckpointError,
            "stylegan_weights: .*is missing",
        ),
        ({"encoder_start": "ir_se50"}, CheckpointError, "encoder_start.*does not fit"),
        (
            {"stylegan_weights": "psp.pdparams"},
            CheckpointError,
            "stylegan_weights: .*holds psp, expected stylegan2",
        ),
        (
            {"age_regressor_path": "ir_se50.pdparams"},
            CheckpointError,
            "age_regressor_path: .*holds a face recognition network",
        ),
    ],
)
def test_files_that_do_not_fit_are_named(files, changes, error, message):
    paths = {n: str(files / v) if str(v).endswith("params") else v for n, v in changes.items()}
    config = _config(files, **paths)
    with pytest.raises(error, match=message):
        build_loss(config, assemble(config).network.latent_avg)


def test_a_published_file_name_stands_for_the_converted_file(files, tmp_path):
    config = _config(files, stylegan_weights=str(files / "stylegan2.pt"))
    assert weight_path(config, "stylegan_weights") == files / "stylegan2.pdparams"
    (tmp_path / "lone.pt").write_bytes(b"torch")
    config = _config(files, stylegan_weights=str(tmp_path / "lone.pt"))
    with pytest.raises(CheckpointError, match="convert/convert_weights.py .*lone.pt"):
        weight_path(config, "stylegan_weights")


@pytest.mark.parametrize(
    "option, name, way",
    [
        (
            "lpips_path",
            "lpips_alex.npz",
            "lpips_alex.npz is missing.*download_weights.py lpips_alex",
        ),
        (
            "pretrained_psp_path",
            "psp_ffhq_encode.pt",
            "psp_ffhq_encode.pdparams is missing.*download_weights.py psp, then"
            " python convert/convert_weights.py pretrained_models/psp_ffhq_encode.pt",
        ),
        ("ir_se50_path", "mine.pdparams", "mine.pdparams is missing.*--list says which"),
    ],
)
def test_the_way_to_a_missing_file_is_told(files, tmp_path, monkeypatch, option, name, way):
    monkeypatch.setenv("PADDLE_SAM_WEIGHTS", str(tmp_path))
    config = _config(files, **{option: str(tmp_path / name)})
    with pytest.raises(CheckpointError, match=f"{option}: .*{way}"):
        weight_path(config, option)


def test_factors_come_from_the_options_of_the_published_names(files):
    config = _config(files, l2_lambda_aging=0.5, lpips_lambda_crop=0.7, w_norm_lambda=0.01)
    loss = build_loss(config, paddle.zeros([8, 32]))
    weights = loss.weights
    assert (weights.l2_aging, weights.lpips_crop, weights.w_norm) == (0.5, 0.7, 0.01)
    assert (weights.id, weights.aging) == (0.1, 5.0)
    assert loss.weigh_identity


def test_networks_no_loss_needs_are_not_loaded(files):
    config = _config(
        files,
        id_lambda=0.0,
        ir_se50_path="gone",
        lpips_lambda=0.0,
        lpips_lambda_crop=0.0,
        lpips_path="gone",
    )
    loss = build_loss(config, paddle.zeros([8, 32]))
    assert loss.embedder is None
    assert loss.lpips is None
