"""A language model in a folder (Hugging Face form): safetensors only, none of its own code, no network."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

from training.base.errors import BadTrainingData

_DESCRIPTIVE = ("*.safetensors", "*.json", "*.jinja", "*.model", "merges.txt")


class LocalModel:
    """A causal language model. most_tokens: of an answer."""

    def __init__(self, folder: Path, most_tokens: int = 2048, device: str = "cpu") -> None:
        """Raises BadTrainingData when the folder holds no such model."""
        if not any(folder.glob("*.safetensors")):
            raise BadTrainingData(f"{folder}: no model there, or not as safetensors")
        self.folder = folder
        self.most_tokens = most_tokens
        self.device = device
        self._tokenizer, self._model = self._load()

    @cached_property
    def name(self) -> str:
        """SHA-256 of the model's files."""
        digest = hashlib.sha256()
        for path in sorted(path for pattern in _DESCRIPTIVE for path in self.folder.glob(pattern)):
            with path.open("rb") as file:
                digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        return f"sha256:{digest.hexdigest()} {self.most_tokens}"

    def complete(self, prompt: str) -> str:
        """The likeliest continuation. Raises BadTrainingData when the prompt is too long for the model."""
        import torch

        tokens = self._tokens(prompt)
        room = getattr(self._model.config, "max_position_embeddings", None)
        if room is not None and tokens.shape[1] + self.most_tokens > room:
            raise BadTrainingData("the report and its answer are too long for the model")
        with torch.inference_mode():
            answer = self._model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=self.most_tokens,
                do_sample=False,
                pad_token_id=self._tokenizer.pad_token_id or self._tokenizer.eos_token_id or 0,
            )
        text: str = self._tokenizer.decode(answer[0, tokens.shape[1] :], skip_special_tokens=True)
        return text

    def _tokens(self, prompt: str) -> Any:
        """(1, n) token ids; as one turn of a chat where the model is made for chats."""
        if self._tokenizer.chat_template:
            turns = [{"role": "user", "content": prompt}]
            prompt = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            encoded = self._tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        else:
            encoded = self._tokenizer(prompt, return_tensors="pt")
        return encoded["input_ids"].to(self.device)

    def _load(self) -> tuple[Any, Any]:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        own = {"local_files_only": True, "trust_remote_code": False}
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.folder, **own)  # nosec B615
            model: Any = AutoModelForCausalLM.from_pretrained(self.folder, use_safetensors=True, **own)  # nosec B615
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise BadTrainingData(f"{self.folder}: cannot be loaded as a language model ({error})") from error
        return tokenizer, model.to(self.device).eval()
