"""The volume tokenizer: a VQ-VAE that learns to give patches back; its encoder goes into the bundle.

    python -m training.stages.tokenizer --run RUN

L1 reconstruction and commitment loss, the codebook by moving averages, the three spatial axes in a random order each
step (arXiv 2509.18638). The network is MONAI's VQVAE, the encoder that of `prima_core.volume_tokenizer`.

Legend of the suffixes: B patches, C latent channels, P latent positions, K codes, ZYX voxels.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer
from safetensors.torch import load_file
from torch import Tensor

from prima_core.base import monai
from prima_core.base.config import TokenizerShape
from training.base.checkpoint import done, finish, finished, write_weights
from training.base.command import command, explained
from training.base.errors import BadTrainingData
from training.base.loop import EndlessOrder, LoopSettings, Outputs, Stage, random, train
from training.base.trained_on import SEEN, write_seen
from training.prepare.store import TokenStore
from training.run_folder import RunFolder
from training.stages.architecture import small

ENCODER, WHOLE = "encoder.safetensors", "vqvae.safetensors"
STANDARD_PATCHES = 512  # mean and deviation of latents are measured on about so many
AXES = tuple(permutations((1, 2, 3)))  # orders of a patch's spatial axes, behind the batch's

Patches = npt.NDArray[np.float16]  # (N, 4, 32, 32), thin axis first


@dataclass(frozen=True)
class TokenizerSettings:
    """shape: of the encoder; the decoder mirrors it. codes: size of the codebook. decay: of its moving averages.

    dead: a code that stands for less than this share of what a code stands for on average is put elsewhere.
    """

    loop: LoopSettings = field(default_factory=lambda: LoopSettings(100_000, 256, warmup=200))
    shape: TokenizerShape = field(default_factory=lambda: small((), ()).tokenizer)
    codes: int = 8192
    learning_rate: float = 3e-4
    commitment: float = 0.25
    decay: float = 0.99
    dead: float = 0.01


@dataclass(frozen=True)
class Reconstruction:
    """How well patches come back. l1: mean absolute error of values 0…1. psnr: dB, peak 1. codes_used: share, 0…1."""

    l1: float
    psnr: float
    codes_used: float


def train_tokenizer(
    training: Patches,
    held_out: Patches,
    folder: Path,
    settings: TokenizerSettings | None = None,
    studies: Sequence[str] = (),
) -> Reconstruction:
    """Train on patches and report on held-out ones. Resumes, and returns at once where `folder` is done.

    studies: whose patches these are, on whom nobody is to be judged later. Writes vqvae.safetensors, and
    encoder.safetensors (`tokenizer.*` as in a bundle) with standardised latents.
    Raises BadTrainingData, and what `training.base.loop.train` raises.
    """
    settings = settings or TokenizerSettings()
    if not len(training) or not len(held_out):
        raise BadTrainingData("the tokenizer needs patches to train on and others to be judged by")
    seen = [[len(patches), zlib.crc32(np.ascontiguousarray(patches).data)] for patches in (training, held_out)]
    identity = asdict(settings) | {"loop": None, "patches": seen}
    whole_identity = identity | settings.loop.identity()
    if (figures := finished(folder, whole_identity)) is not None:
        return Reconstruction(**figures["held_out"])
    stage = _TokenizerStage(training, settings)
    result = train(stage, settings.loop, folder, identity, "tokenizer")
    reconstruction = judge(stage.module, held_out)
    write_weights(folder / WHOLE, stage.module.state_dict())
    standardise(stage.module, training)
    state = stage.module.encoder.state_dict()
    write_weights(folder / ENCODER, {f"tokenizer.encoder.{name}": tensor for name, tensor in state.items()})
    write_seen(folder, studies)
    figures = {"held_out": asdict(reconstruction), "training": result.figures()}
    finish(folder, whole_identity, (ENCODER, WHOLE, SEEN), figures)
    return reconstruction


def vqvae(settings: TokenizerSettings) -> Any:
    """MONAI's network. Its encoder's state has the keys of `prima_core.volume_tokenizer.VolumeTokenizer`."""
    shape = settings.shape
    return monai.vqvae().VQVAE(
        spatial_dims=3,
        in_channels=1,
        out_channels=1,
        channels=shape.channels,
        num_res_layers=shape.residual_layers,
        num_res_channels=shape.residual_channels,
        downsample_parameters=shape.downsample,
        upsample_parameters=_mirrored(shape),
        num_embeddings=settings.codes,
        embedding_dim=shape.latent_channels,
        commitment_cost=settings.commitment,
        decay=settings.decay,
        dropout=0.0,
        act="RELU",
        ddp_sync=False,
    )


def _mirrored(shape: TokenizerShape) -> tuple[tuple[int, int, int, int, int], ...]:
    """(stride, kernel, dilation, padding, output padding) of the decoder's levels."""
    return tuple((*level, 0) for level in reversed(shape.downsample))


@torch.inference_mode()
def judge(network: Any, patches: Patches, batch: int = 64) -> Reconstruction:
    """How well `network` gives patches back that have their thin axis first, as the tokenizer takes axial ones."""
    network.eval()
    absolute = squared = 0.0
    used: set[int] = set()
    for start in range(0, len(patches), batch):
        image_BZYX = _doubled(patches[start : start + batch])
        latent_BCZYX = network.encode(image_BZYX[:, None])
        codes_BP = _nearest(network, latent_BCZYX.flatten(2).transpose(1, 2))
        used.update(codes_BP.flatten().tolist())
        back_BZYX = network.decode(_embedded(network, codes_BP, latent_BCZYX))[:, 0]
        absolute += float((back_BZYX - image_BZYX).abs().sum(dtype=torch.float64))
        squared += float((back_BZYX - image_BZYX).square().sum(dtype=torch.float64))
    voxels = 2 * patches.size
    codes = network.quantizer.quantizer.num_embeddings
    psnr = -10 * math.log10(max(squared / voxels, 1e-12))
    return Reconstruction(absolute / voxels, psnr, len(used) / codes)


@torch.no_grad()
def standardise(network: Any, patches: Patches) -> None:
    """Scale and shift the encoder's last convolution so that each latent channel has mean 0 and deviation 1.

    The study model reads latents beside position values of about 1, without a layer between that could weigh them.
    """
    network.eval()
    some = patches[:: max(len(patches) // STANDARD_PATCHES, 1)]
    latent_BCZYX = torch.cat([network.encode(_doubled(one[None])[:, None]) for one in some])
    mean_C = latent_BCZYX.mean(dim=(0, 2, 3, 4))
    deviation_C = latent_BCZYX.std(dim=(0, 2, 3, 4)).clamp(min=1e-6)
    last: Any = [layer for layer in network.encoder.modules() if isinstance(layer, torch.nn.Conv3d)][-1]
    last.weight.div_(deviation_C[:, None, None, None, None])
    last.bias.sub_(mean_C).div_(deviation_C)


class _TokenizerStage(Stage[tuple[int, tuple[int, ...]]]):
    """Items are (row of a patch, order of the axes); the order is one for the whole step."""

    module: Any

    def __init__(self, patches: Patches, settings: TokenizerSettings) -> None:
        torch.manual_seed(settings.loop.seed)
        self.module = vqvae(settings)
        trained = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=settings.learning_rate)
        self._patches, self._settings = patches, settings
        self._order = EndlessOrder(range(len(patches)), settings.loop.seed)

    @property
    def _codebook(self) -> Any:
        return self.module.quantizer.quantizer

    def draw(self, step: int, positions: range) -> Sequence[tuple[int, tuple[int, ...]]]:
        axes = AXES[random(self._settings.loop.seed, step).integers(len(AXES))]
        batch = self._settings.loop.batch
        return [(self._order[step * batch + position], axes) for position in positions]

    def outputs(self, items: Sequence[tuple[int, tuple[int, ...]]]) -> Outputs:
        image_BZYX = _doubled(self._patches[[row for row, _ in items]]).permute(0, *items[0][1])
        image_BZYX = image_BZYX.to(self._codebook.embedding.weight.device)
        latent_BCZYX = self.module.encode(image_BZYX[:, None]).float()
        latent_BPC = latent_BCZYX.flatten(2).transpose(1, 2)
        quantised_BCZYX = _embedded(self.module, _nearest(self.module, latent_BPC), latent_BCZYX)
        commitment_B = (quantised_BCZYX - latent_BCZYX).square().mean(dim=(1, 2, 3, 4))
        straight_through = latent_BCZYX + (quantised_BCZYX - latent_BCZYX).detach()
        back_BZYX = self.module.decode(straight_through)[:, 0].float()
        l1_B = (back_BZYX - image_BZYX).abs().mean(dim=(1, 2, 3))
        return {"l1": l1_B, "commitment": commitment_B, "latents": latent_BPC}

    def losses(self, outputs: Outputs) -> Outputs:
        l1, commitment = outputs["l1"].mean(), outputs["commitment"].mean()
        return {"loss": l1 + self._settings.commitment * commitment, "l1": l1, "commitment": commitment}

    def after_step(self, step: int, outputs: Outputs) -> None:
        """The codebook follows the latents by moving averages (van den Oord et al. 2017, arXiv 1711.00937, A.1).

        MONAI's own update starts from averages of nothing, which flings codes away that are not used at once. Here a
        code that stands for almost nothing is put on a latent drawn at random; at the first step all of them are.
        """
        book, decay = self._codebook, self._settings.decay
        latent_NC = outputs["latents"].flatten(0, 1)
        dead_K = book.ema_cluster_size <= self._settings.dead * len(latent_NC) / book.num_embeddings
        draw = random(self._settings.loop.seed, step, 1).integers(len(latent_NC), size=book.num_embeddings)
        drawn_KC = latent_NC[torch.from_numpy(draw).to(latent_NC.device)]
        book.ema_w[dead_K] = book.embedding.weight[dead_K] = drawn_KC[dead_K]
        book.ema_cluster_size[dead_K] = 1.0
        code_N = _nearest(self.module, latent_NC)
        book.ema_cluster_size.mul_(decay).add_(code_N.bincount(minlength=book.num_embeddings), alpha=1 - decay)
        sums_KC = torch.zeros_like(book.ema_w).index_add_(0, code_N, latent_NC)
        book.ema_w.mul_(decay).add_(sums_KC, alpha=1 - decay)
        book.embedding.weight.copy_(book.ema_w / book.ema_cluster_size[:, None].clamp(min=book.epsilon))


def _doubled(patches: Patches) -> Tensor:
    """(B, 4, 32, 32) → (B, 8, 32, 32) float32: every sample of the thin axis twice, as the encoder takes them."""
    return torch.from_numpy(patches.astype(np.float32)).repeat_interleave(2, dim=1)


def _nearest(network: Any, latents: Tensor) -> Tensor:
    """(…, C) → (…,) the nearest code of each latent."""
    codes_KC = network.quantizer.quantizer.embedding.weight.detach()
    score = 2 * latents.detach() @ codes_KC.T - codes_KC.square().sum(dim=1)
    nearest: Tensor = score.argmax(dim=-1)
    return nearest


def _embedded(network: Any, codes_BP: Tensor, like_BCZYX: Tensor) -> Tensor:
    vectors_BPC: Tensor = network.quantizer.quantizer.embedding.weight.detach()[codes_BP]
    return vectors_BPC.transpose(1, 2).reshape(like_BCZYX.shape)


def read_patches(store: TokenStore, studies: Sequence[str]) -> Patches:
    """All patches of these studies, in their order."""
    found = [store.patches(study) for study in studies if study in store]
    return np.concatenate(found) if found else np.empty((0, 4, 32, 32), np.float16)


def read_encoder(folder: Path) -> dict[str, Tensor]:
    """`tokenizer.*` of a bundle. Raises BadTrainingData where the stage has not ended."""
    done(folder)
    return load_file(folder / ENCODER)


app = command()


@app.command()
def main(
    run: Annotated[Path, typer.Option(help="The run's folder; reads its patches/.")],
    steps: Annotated[int, typer.Option(help="Updates.")] = 100_000,
    batch: Annotated[int, typer.Option(help="Patches an update.")] = 256,
    codes: Annotated[int, typer.Option(help="Size of the codebook.")] = 8192,
    learning_rate: Annotated[float, typer.Option(help="Adam's.")] = 3e-4,
) -> None:
    """Train the tokenizer of a run."""
    settings = TokenizerSettings(LoopSettings(steps, batch, warmup=200), codes=codes, learning_rate=learning_rate)
    with explained():
        store = TokenStore(run / "patches")
        split = RunFolder(run).split_of(store.records)
        training, held_out = (read_patches(store, part) for part in (split.train, split.validation))
        seen = (*split.train, *split.validation)
        found = train_tokenizer(training, held_out, run / "tokenizer", settings, seen)
    typer.echo(f"held out: L1 {found.l1:.4f}, PSNR {found.psnr:.1f} dB, {found.codes_used:.0%} of the codes used")


if __name__ == "__main__":
    app()
