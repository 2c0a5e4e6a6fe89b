"""Deterministic weights for official-size checkpoints, so that full-scale parity can be
tested without shipping gigabytes.

Each file in manifests/ lists the tensors of one published checkpoint (name, shape, dtype) in its
torch layout.  `state_dict(manifest, seed)` fills every tensor from a counter-based generator keyed
by (seed, tensor name); the scales keep activations of the same order as those of trained networks.
Only numpy is needed; `torch_checkpoint(name, seed)` wraps the tensors in the same outer structure
as the published file.
"""

import json
import zlib
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent


def manifest(name):
    """A file of manifests/; one that is `like` another lists what it has besides, or instead."""
    found = json.loads((HERE / "manifests" / f"{name}.json").read_text())
    if "like" in found:
        own = {entry[0] for entry in found["tensors"]}
        absent = tuple(found["without"])
        found["tensors"] += [
            entry
            for entry in manifest(found["like"])["tensors"]
            if entry[0] not in own and not entry[0].startswith(absent)
        ]
    return found


def tensor(name, shape, dtype, seed=0):
    """numpy array for one tensor of a torch state_dict."""
    if dtype == "int64":  # num_batches_tracked
        return np.zeros(shape, np.int64)
    rng = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(name.encode())]))
    x = rng.standard_normal(shape, dtype=np.float32) if shape else np.float32(rng.standard_normal())
    x = np.asarray(x, np.float32)
    leaf = name.rsplit(".", 1)[-1]
    if name.endswith("blur.kernel") or name.endswith("upsample.kernel") or leaf == "kernel":
        k = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32) / 64
        up = (
            "convs" in name
            and "decoder" in name
            or "upsample" in name
            or name.startswith("convs")
            and "conv.blur" in name
        )
        return k * 4 if up else k
    if leaf == "running_var":
        return np.exp(0.1 * x)
    if leaf == "running_mean":
        return 0.1 * x
    if "noises." in name or leaf == "input":
        return x
    if "noise.weight" in name:
        return 0.1 * x
    if "modulation.bias" in name:
        return 1 + 0.1 * x
    if leaf == "bias":
        return 0.05 * x
    if ".shared_weight_hypernet." in name:  # HyperStyle's offsets: a fifth of the weights
        return 0.02 * x
    if "refinement_blocks" in name and ".output." in name and x.ndim > 1 and "linear" not in name:
        return x * np.float32(0.005 * np.sqrt(1.6 / np.prod(x.shape[1:])))
    if leaf in ("weight", "latent_avg", "mean", "std") or leaf.startswith("weight"):
        if x.ndim == 5:  # modulated convolution: equalised at run time
            return x
        if "modulation.weight" in name:
            return 0.3 * x
        if x.ndim == 1:  # batch norm scale, PReLU slope
            return (0.25 + 0.05 * x) if shape and is_prelu(name) else 1 + 0.1 * x
        if is_mapping(name):
            return 100 * x  # lr_mul = 0.01
        if is_equalised(name):
            return x
        if name.endswith(
            ".linear.weight"
        ):  # last layer of a map-to-style block: latents of order one
            return 0.012 * x
        if name == "fc8-101.weight":  # spread the age logits
            return 0.1 * x
        fan_in = int(np.prod(x.shape[1:]))
        return x * np.float32(np.sqrt(1.6 / fan_in))
    return 0.1 * x


def paddle_tensor(name, shape, seed=0):
    """numpy array for one tensor of a Paddle state_dict, by its name in torch."""
    endings = {"._mean": ".running_mean", "._variance": ".running_var", "._weight": ".weight"}
    for theirs, ours in (endings | {".scale": ".weight"}).items():
        if name.endswith(theirs):
            name = name.removesuffix(theirs) + ours
    return tensor(name.replace("lins.", "lin"), shape, "float32", seed)


def is_prelu(name):
    p = name.split(".")
    return name.endswith(("input_layer.2.weight", "encoder.relu.weight")) or (
        len(p) >= 3 and p[-3] == "res_layer" and p[-2] == "2"
    )


def is_mapping(name):
    p = name.split(".")
    return "style" in p and p[-1] == "weight" and p[p.index("style") + 1].isdigit()


def is_equalised(name):
    """EqualLinear / EqualConv2d weights: stored with unit variance, scaled at run time."""
    return name.split(".")[0] in ("convs", "final_conv", "final_linear")


def images(channels=3, size=256, count=2, seed=0):
    """Images [count, channels, size, size] in [-1, 1]: large patches and some noise."""
    rng = np.random.Generator(np.random.Philox(key=[seed, channels]))
    coarse = rng.uniform(-0.9, 0.9, (count, channels, 16, 16))
    noise = rng.uniform(-0.1, 0.1, (count, channels, size, size))
    return (np.kron(coarse, np.ones((size // 16, size // 16))) + noise).astype(np.float32)


def codes(count=2, seed=0):
    """Codes in W, [count, 1, 512], for networks that start from a code."""
    return 0.5 * tensor("codes", (count, 1, 512), "float32", seed)


def state_dict(name, seed=0):
    """{tensor name: numpy array} for the flat state_dict inside checkpoint `name`."""
    return {n: tensor(n, tuple(s), d, seed) for n, s, d in manifest(name)["tensors"]}


def torch_checkpoint(name, seed=0):
    """The published file's outer structure, with torch tensors (needs torch)."""
    import torch

    m = manifest(name)
    sd = {k: torch.from_numpy(np.array(v)) for k, v in state_dict(name, seed).items()}
    if m["wrap"] is None:
        return sd
    for common, others in m.get("repeated", {}).items():  # one tensor under several names
        own = {n.removeprefix(common): t for n, t in sd.items() if n.startswith(common)}
        sd |= {other + n: t for other in others for n, t in own.items()}
    out = {m["wrap"]: sd}
    for key, shape in m.get("extra", {}).items():
        out[key] = torch.from_numpy(0.1 * tensor(key, tuple(shape), "float32", seed))
    if "opts" in m:
        out["opts"] = m["opts"]
    return out
