"""Self-supervised features: MoCo's and DINO's files, ResNet-50 as PyTorch computes it, the loss."""

import numpy as np
import paddle
import pytest
import torch
import torch.nn.functional as tF

import paddle_sam
from paddle_sam.ageing.losses import LossWeights, SAMLoss
from paddle_sam.ageing.train.options import SAMOptions
from paddle_sam.convert.convert import convert_file, revert_file
from paddle_sam.errors import CheckpointError, ConfigError
from paddle_sam.networks.image_features import SelfSupervisedFeatures

STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))


def published():
    """The tensors of torchvision's ResNet-50 without its last layer, under their names."""
    random = torch.Generator().manual_seed(0)
    state = {}

    def conv(name, out, into, side):
        scale = (2 / (into * side * side)) ** 0.5
        state[f"{name}.weight"] = torch.randn(out, into, side, side, generator=random) * scale

    def norm(name, width):
        state[f"{name}.weight"] = 1 + 0.1 * torch.randn(width, generator=random)
        state[f"{name}.bias"] = 0.1 * torch.randn(width, generator=random)
        state[f"{name}.running_mean"] = 0.1 * torch.randn(width, generator=random)
        state[f"{name}.running_var"] = torch.rand(width, generator=random) + 0.5
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    conv("conv1", 64, 3, 7)
    norm("bn1", 64)
    into = 64
    for number, (width, blocks) in enumerate(STAGES, 1):
        for block in range(blocks):
            name = f"layer{number}.{block}"
            for part, (out, channels, side) in enumerate(
                ((width, into, 1), (width, width, 3), (4 * width, width, 1)), 1
            ):
                conv(f"{name}.conv{part}", out, channels, side)
                norm(f"{name}.bn{part}", out)
            if block == 0:
                conv(f"{name}.downsample.0", 4 * width, into, 1)
                norm(f"{name}.downsample.1", 4 * width)
            into = 4 * width
    return state


def reference(state, images):
    """The network written out: strides lie in the 3x3 convolutions, as in torchvision."""

    def norm(x, name):
        parts = (state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return tF.batch_norm(x, *parts)

    x = tF.interpolate(images, size=224)
    x = tF.relu(norm(tF.conv2d(x, state["conv1.weight"], stride=2, padding=3), "bn1"))
    x = tF.max_pool2d(x, 3, 2, 1)
    for number, (_, blocks) in enumerate(STAGES, 1):
        for block in range(blocks):
            name, stride = f"layer{number}.{block}", 1 + (number > 1 and block == 0)
            y = tF.relu(norm(tF.conv2d(x, state[f"{name}.conv1.weight"]), f"{name}.bn1"))
            y = tF.conv2d(y, state[f"{name}.conv2.weight"], stride=stride, padding=1)
            y = tF.relu(norm(y, f"{name}.bn2"))
            y = norm(tF.conv2d(y, state[f"{name}.conv3.weight"]), f"{name}.bn3")
            if block == 0:
                x = tF.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride)
                x = norm(x, f"{name}.downsample.1")
            x = tF.relu(x + y)
    return tF.normalize(x.mean(dim=(2, 3)), dim=1)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """MoCo's layout with its queue and second encoder, the same converted, and the tensors."""
    folder = tmp_path_factory.mktemp("moco")
    state = published()
    moco = {f"module.encoder_q.{name}": tensor for name, tensor in state.items()}
    moco["module.encoder_q.fc.0.weight"] = torch.zeros(8, 2048)
    moco["module.encoder_k.conv1.weight"] = torch.zeros(64, 3, 7, 7)
    moco |= {"module.queue": torch.zeros(8, 16), "module.queue_ptr": torch.zeros(1).long()}
    torch.save({"epoch": 800, "arch": "resnet50", "state_dict": moco}, folder / "moco.pt")
    report = convert_file(folder / "moco.pt", folder / "moco.pdparams")
    assert report.kind == "self_supervised"
    return folder, state


def test_features_are_those_of_pytorch(files):
    folder, state = files
    network = paddle_sam.load(folder / "moco.pdparams", expect=SelfSupervisedFeatures)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 3, 256, 256)).astype(np.float32)
    with paddle.no_grad(), torch.no_grad():
        found = network(paddle.to_tensor(images)).numpy()
        expected = reference(state, torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3


def test_the_way_back_has_the_published_names(files):
    folder, state = files
    revert_file(folder / "moco.pdparams", folder / "back.pt")
    back = torch.load(folder / "back.pt", weights_only=True)["state_dict"]
    assert back.keys() == {f"module.encoder_q.{name}" for name in state}
    for name in ("conv1.weight", "layer4.2.bn3.running_var"):
        assert torch.equal(back[f"module.encoder_q.{name}"], state[name])


def test_a_bare_network_as_dinos_is_the_same(files, tmp_path):
    folder, state = files
    torch.save({**state, "fc.weight": torch.zeros(1000, 2048)}, tmp_path / "dino.pth")
    convert_file(tmp_path / "dino.pth", tmp_path / "dino.pdparams")
    left, right = (
        paddle_sam.load(path).state_dict()
        for path in (folder / "moco.pdparams", tmp_path / "dino.pdparams")
    )
    assert left.keys() == right.keys()
    assert all(bool((left[name] == right[name]).all()) for name in left)


def test_a_lost_tensor_is_named(tmp_path):
    state = published()
    del state["layer3.1.conv2.weight"]
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"layer3\.1\.conv2\.weight"):
        convert_file(tmp_path / "a.pth", tmp_path / "a.pdparams")


class Colours(paddle.nn.Layer):
    """Stands for the network: the mean colour, as a direction."""

    def forward(self, images):
        return paddle.nn.functional.normalize(images.mean(axis=[2, 3]))


def test_the_loss_is_one_minus_the_cosine():
    zero = dict.fromkeys(("id", "l2", "l2_crop", "lpips", "lpips_crop", "w_norm", "aging"), 0.0)
    loss = SAMLoss(LossWeights(**zero, moco=0.5), features=Colours())
    source, target, output = (
        paddle.to_tensor(np.tile(np.float32(colour)[None, :, None, None], (1, 1, 8, 8)))
        for colour in ((0, 0, 1), (1, 0, 0), (0.6, 0.8, 0))
    )
    output.stop_gradient = False
    judged = loss(output, paddle.zeros([1, 2, 4]), loss.reference(source, target))
    assert judged.terms["loss_moco"].item() == pytest.approx(0.4, abs=1e-6)
    assert judged.total.item() == pytest.approx(0.2, abs=1e-6)
    assert judged.captions["diff_views"].item() == pytest.approx(0, abs=1e-6)
    assert judged.terms["id_improve"].item() == pytest.approx(0.6, abs=1e-6)
    judged.total.sum().backward()
    assert output.grad.abs().max().item() > 0


def test_identity_and_features_exclude_each_other():
    with pytest.raises(ConfigError, match=r"id_lambda, moco_lambda: found 0\.1 and 0\.5"):
        SAMOptions(task="psp", moco_lambda=0.5)
    assert SAMOptions(task="psp", moco_lambda=0.5, id_lambda=0.0).moco_lambda == 0.5
    with pytest.raises(ConfigError, match="moco_lambda: is 0.5"):
        SAMLoss(LossWeights(id=0, lpips=0, lpips_crop=0, aging=0, moco=0.5))


def test_a_training_asks_for_it(files, tmp_path):
    from tests.unit.training import tiny

    tiny.write_files(tmp_path)
    changes = {"task": "psp", "input_nc": 3, "start_from_encoded_w_plus": False}
    changes |= {"start_from_latent_avg": True, "use_weighted_id_loss": False, "aging_lambda": 0.0}
    changes |= {"id_lambda": 0.0, "moco_lambda": 0.5, "cycle_lambda": 0.0, "l2_lambda_crop": 0.0}
    changes |= {"moco_path": str(files[0] / "moco.pdparams"), "lpips_lambda_crop": 0.0}
    trainer = tiny.trainer(tmp_path, **changes)
    scalars = trainer.train_step(tiny.batch(), 0)
    values = [value for name, value in scalars.items() if name.startswith("loss_moco")]
    assert len(values) == 1
    assert 0 <= values[0] < 2
    with pytest.raises(CheckpointError, match="moco_path"):
        tiny.trainer(tmp_path, **{**changes, "moco_path": "nowhere.pdparams"})
