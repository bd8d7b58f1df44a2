"""Archives in the form of `torch.save`, made by hand: the released checkpoint in small, and hostile ones."""

from __future__ import annotations

import json
import sys
import types
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

CLASSES = {
    "complete_visual_model": ["FullMRIModel"],
    "model": ["CLIP"],
    "model_parts": ["HierViT", "ViT", "Transformer", "Attention", "PreNorm", "FeedForward", "SerieTransformerEncoder"],
}
TOKENIZER_CONFIG = {
    "vqvae_config": {
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 1,
        "num_res_layers": 1,
        "downsample_parameters": [[2, 4, 1, 1], [2, 2, 1, 0]],
        "upsample_parameters": [[2, 4, 1, 1, 0], [2, 2, 1, 0, 0]],
        "num_channels": [8, 8],
        "num_res_channels": [8, 8],
        "num_embeddings": 16,
        "embedding_dim": 2,
        "ckpt_path": "vqvae.pth",
    }
}


def write_archive(
    path: Path, pickled: bytes, members: Mapping[str, bytes] | None = None, compress: bool = False
) -> Path:
    """A ZIP with `data.pkl` and other members, as torch.save lays them out."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, data in (members or {}).items():
            archive.writestr(f"archive/{name}", data)
    return path


class ReleasedModel:
    """A tiny model of the released file's classes; tests bend it before they save it."""

    def __init__(self, heads: int = 2, head_width: int = 8, main: bool = False) -> None:
        torch.manual_seed(0)
        self.main = main
        names = {module: list(found) for module, found in CLASSES.items()}
        if main:
            names["__main__"] = names.pop("complete_visual_model")
        self._modules = names
        self._class = {
            name: type(name, (nn.Module,), {"__module__": module}) for module, found in names.items() for name in found
        }
        self._heads, self._head_width = heads, head_width
        self.root = self.make("FullMRIModel", clipmodel=self.make("CLIP", visual_model=self._visual()))
        self.root.diagnosisheads = {"glioma": [self.mlp(64, 3, 0.25), 2], "edema": [self.mlp(64, 3, -0.5), 0]}
        self.root.referralheads = {"neurology": [self.mlp(64, 2, 0.0), 1]}
        self.root.priorityhead = self.mlp(64, 4)

    def make(self, name: str, **parts: Any) -> Any:
        """An object of one of the release's classes with these attributes."""
        made = self._class[name]()
        for key, value in parts.items():
            setattr(made, key, value)
        return made

    @property
    def visual(self) -> Any:
        """The visual model."""
        return self.root.clipmodel.visual_model

    def mlp(self, width: int, outputs: int, threshold: float | None = None) -> nn.Sequential:
        """A task head."""
        head = nn.Sequential(nn.Linear(width, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, outputs))
        if threshold is not None:
            head.thresh = threshold  # type: ignore[assignment]
        return head

    def transformer(self, width: int, depth: int = 1) -> Any:
        """A stack of blocks as the release nests them."""
        inner = self._heads * self._head_width
        alone = self._heads == 1 and inner == width
        layers = [
            nn.ModuleList(
                [
                    self.make(
                        "PreNorm",
                        norm=nn.LayerNorm(width),
                        fn=self.make(
                            "Attention",
                            heads=self._heads,
                            causal=False,
                            to_qkv=nn.Linear(width, 3 * inner, bias=False),
                            to_out=nn.Identity() if alone else nn.Sequential(nn.Linear(inner, width), nn.Dropout(0.0)),
                        ),
                    ),
                    self.make("PreNorm", norm=nn.LayerNorm(width), fn=self.make("FeedForward", net=self._net(width))),
                ]
            )
            for _ in range(depth)
        ]
        return self.make("Transformer", layers=nn.ModuleList(layers))

    def name_encoder(self, output: int, prelinear: bool = False) -> Any:
        """A name encoder with its own linear."""
        return self.make(
            "SerieTransformerEncoder",
            embed=nn.Embedding(47, 22),
            transformer=self.transformer(32),
            linear=nn.Linear(32, output),
            prelinear=prelinear,
            p_enc=torch.zeros(200, 10),
        )

    def _net(self, width: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(width, 12), nn.GELU(), nn.Dropout(0.0), nn.Linear(12, width), nn.Dropout(0.0))

    def _vit(self, width: int, output: int) -> Any:
        return self.make(
            "ViT",
            cls_token=nn.Parameter(torch.randn(1, 2, width)),
            pool="cls",
            transformer=self.transformer(width),
            layernorm=nn.LayerNorm(width),
            mlp_head=nn.Sequential(nn.Linear(2 * width, output)),
        )

    def _visual(self) -> Any:
        return self.make(
            "HierViT",
            innerViT=self._vit(289, 32),
            outerViT=self._vit(32, 16),
            serieencoder=nn.Sequential(self.name_encoder(289, prelinear=True), nn.Linear(32, 289)),
            studyencoder=self.name_encoder(32),
            useseriename=True,
            usestudydescription=True,
        )

    def save(self, folder: Path, root: Any = None) -> tuple[Path, Path, Path]:
        """The three files of a release: full model, tokenizer, tokenizer configuration."""
        from monai.networks.nets.vqvae import VQVAE

        folder.mkdir(parents=True, exist_ok=True)
        with self._importable():
            torch.save(root or self.root, folder / "full.pt")
        config = dict(TOKENIZER_CONFIG["vqvae_config"])
        config["channels"] = config.pop("num_channels")
        del config["ckpt_path"]
        torch.manual_seed(1)
        torch.save(VQVAE(**config).state_dict(), folder / "vqvae.pth")  # type: ignore[arg-type]
        (folder / "config.json").write_text(json.dumps(TOKENIZER_CONFIG), "utf-8")
        return folder / "full.pt", folder / "vqvae.pth", folder / "config.json"

    @contextmanager
    def _importable(self) -> Iterator[None]:
        """The release's classes where pickle looks for them, while the file is written."""
        before = {module: sys.modules.get(module) for module in self._modules}
        for module, names in self._modules.items():
            stand_in = types.ModuleType(module)
            for name in names:
                setattr(stand_in, name, self._class[name])
            sys.modules[module] = stand_in
        try:
            yield
        finally:
            for module, original in before.items():
                if original is None:
                    del sys.modules[module]
                else:
                    sys.modules[module] = original


Bend = Callable[[ReleasedModel], object]
