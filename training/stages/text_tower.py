"""The text tower: reports → vectors. A local Hugging Face model, or a small GPT-2 with a vocabulary of the run's own.

    python -m training.stages.text_tower --run RUN

Only folders on this machine are read, only safetensors, and no code that lies in them: nothing is downloaded, unpickled
or executed. Needs tokenizer.json, config.json and model.safetensors.

Legend of the suffixes: B texts, L tokens of the longest one, D the model's width, V width of the CLIP vector.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence

from prima_core.base.attention import NORM_EPSILON
from training.base.checkpoint import done, finish, finished, sha256, write_weights, write_whole
from training.base.cohort import StudyReport
from training.base.command import command, explained
from training.base.errors import BadTrainingData
from training.run_folder import RunFolder

TOKENIZER, CONFIG, WEIGHTS = "tokenizer.json", "config.json", "model.safetensors"
END = "<|endoftext|>"
TEXTS_AT_ONCE = 64


@dataclass(frozen=True)
class TextSettings:
    """A small GPT-2. vocabulary: largest number of byte pairs, with the 256 bytes. most_tokens: of one report."""

    width: int = 128
    depth: int = 2
    heads: int = 4
    vocabulary: int = 2048
    most_tokens: int = 256
    seed: int = 0


def make_text_tower(reports: Iterable[StudyReport], folder: Path, settings: TextSettings | None = None) -> None:
    """A Hugging Face folder of an untrained GPT-2 whose vocabulary is learned from `reports`; `train_clip` trains it.

    Returns at once where `folder` is done. Raises BadTrainingData without reports, NoSpace.
    """
    settings = settings or TextSettings()
    texts = sorted({item for report in reports for item in report.items})
    if not texts:
        raise BadTrainingData("there are no reports to learn a vocabulary from")
    identity = asdict(settings) | {"statements": [len(texts), zlib.crc32("\n".join(texts).encode())]}
    if finished(folder, identity) is not None:
        return
    tokenizer = _learned_tokenizer(texts, settings.vocabulary)
    config = _gpt2_config(settings, tokenizer)
    torch.manual_seed(settings.seed)
    model = _gpt2(config)
    write_whole(folder / TOKENIZER, lambda path: tokenizer.save(str(path)))
    write_whole(folder / CONFIG, lambda path: path.write_text(config.to_json_string(), "utf-8"))
    write_weights(folder / WEIGHTS, model.state_dict(), {"format": "pt"})
    finish(folder, identity, (TOKENIZER, CONFIG, WEIGHTS), {"vocabulary": tokenizer.get_vocab_size()})


def _learned_tokenizer(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _gpt2_config(settings: TextSettings, tokenizer: Tokenizer) -> Any:
    from transformers import GPT2Config

    end = tokenizer.token_to_id(END)
    return GPT2Config(
        vocab_size=tokenizer.get_vocab_size(),
        n_positions=settings.most_tokens,
        n_embd=settings.width,
        n_layer=settings.depth,
        n_head=settings.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=end,
        eos_token_id=end,
        architectures=["GPT2Model"],
    )


def _gpt2(config: Any) -> Any:
    from transformers import GPT2Model

    return GPT2Model(config)


class TextTower(nn.Module):
    """Last token → LayerNorm → Linear → LayerNorm → unit length (arXiv 2509.18638)."""

    def __init__(self, model: Any, tokenizer: Tokenizer, output: int, most_tokens: int) -> None:
        super().__init__()
        width = model.config.hidden_size
        self.model = model
        self.norm = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.output = nn.Linear(width, output)
        self.output_norm = nn.LayerNorm(output, eps=NORM_EPSILON)
        self._tokenizer = tokenizer
        end = getattr(model.config, "eos_token_id", None)
        self._end = [end] if isinstance(end, int) else []
        self._most = min(most_tokens, getattr(model.config, "max_position_embeddings", most_tokens))

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Texts, cut to the most tokens → (B, V) of unit length."""
        device = self.output.weight.device
        ids = [self._ids(one.ids) for one in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]
        last_B = torch.tensor([len(one) - 1 for one in ids], device=device)
        ids_BL = pad_sequence(ids, batch_first=True).to(device)
        present_BL = (torch.arange(ids_BL.shape[1], device=device) <= last_B[:, None]).long()
        hidden_BLD = self.model(input_ids=ids_BL, attention_mask=present_BL).last_hidden_state
        last_BD = hidden_BLD[torch.arange(len(ids), device=device), last_B]
        return normalize(self.output_norm(self.output(self.norm(last_BD))), dim=1)

    @torch.inference_mode()
    def vectors(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """(texts, V) float32 of many texts, some at once."""
        starts = range(0, len(texts), TEXTS_AT_ONCE)
        found = [self(texts[start : start + TEXTS_AT_ONCE]).cpu().numpy() for start in starts]
        return np.concatenate(found) if found else np.empty((0, self.output.out_features), np.float32)

    def _ids(self, ids: list[int]) -> Tensor:
        """At least one token: an empty text is the end mark, or the vocabulary's first entry."""
        return torch.tensor((ids[: self._most - len(self._end)] + self._end) or [0])


def open_text_tower(folder: Path, output: int, most_tokens: int = 256) -> TextTower:
    """The model of a Hugging Face folder with fresh layers behind it. Raises BadTrainingData where it is not usable."""
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if missing := [name for name in (TOKENIZER, CONFIG) if not (folder / name).is_file()]:
        raise BadTrainingData(f"{folder}: has no {missing[0]}; a local Hugging Face folder is expected")
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        model = AutoModel.from_pretrained(  # a folder  # nosec B615
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
        )
    except Exception as error:  # both libraries raise whatever comes; nothing was started yet
        raise BadTrainingData(f"{folder}: not a usable model: {error}") from error
    model.config.use_cache = False
    tower = TextTower(model, tokenizer, output, most_tokens)
    nn.init.xavier_uniform_(tower.output.weight)
    nn.init.zeros_(tower.output.bias)
    return tower


def text_identity(folder: Path) -> dict[str, str]:
    """SHA-256 of everything in `folder` that the tower is made of."""
    return {path.name: sha256(path) for path in sorted(folder.glob("*.json")) + sorted(folder.glob("*.safetensors"))}


app = command()


@app.command()
def main(
    run: Annotated[Path, typer.Option(help="The run's folder.")],
    width: Annotated[int, typer.Option(help="Of the small GPT-2.")] = 128,
    depth: Annotated[int, typer.Option(help="Its blocks.")] = 2,
    vocabulary: Annotated[int, typer.Option(help="Most byte pairs.")] = 2048,
) -> None:
    """Make the small text tower of a run from its training reports."""
    opened = RunFolder(run)
    settings = TextSettings(width=width, depth=depth, vocabulary=vocabulary)
    with explained():
        reports, split = opened.store().reports(), opened.split()
        make_text_tower((reports[study] for study in split.train if study in reports), run / "text", settings)
        vocabulary = done(run / "text")["figures"]["vocabulary"]
    typer.echo(f"{run / 'text'}: a vocabulary of {vocabulary}")


if __name__ == "__main__":
    app()
