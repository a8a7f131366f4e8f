"""The model that training begins with: a folder, a name on the Hub, or the tiny random one that is built in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM, set_seed

from dlgc.exceptions import OptionsError

if TYPE_CHECKING:
    from dlgc.train.data import Shards

TEMPLATES = {"default": "chat_template.jinja", "tool_use": "additional_chat_templates/tool_use.jinja"}
"""Where the templates are that transformers picks unasked, the second for dialogues with tools."""
TOKENIZER = ("tokenizer*", "*.jinja", "special_tokens_map.json", "generation_config.json", "config.json")
"""The files of a model that the compiler reads."""
LAYERS, WIDTH, HEADS = 2, 64, 4
"""The size of the built-in model."""


@dataclass(frozen=True)
class Base:
    """A model that can be loaded.

    Attributes:
        name: A folder, or a name on the Hub.
        revision: Branch, tag or commit on the Hub.
        builtin: Whether it is the built-in one.
    """

    name: str
    revision: str = "main"
    builtin: bool = False

    @classmethod
    def find(cls, name: str, revision: str) -> Base:
        """Finds a model by what the user calls it.

        Raises:
            FileNotFoundError: It is written like a path, and nothing is there.
        """
        path = Path(name).expanduser()
        if path.is_dir():
            return cls(str(path))
        if path.is_absolute() or name.startswith(".") or name.count("/") > 1:
            raise FileNotFoundError(f"there is no model folder `{name}`")
        return cls(name, revision)

    @property
    def public_name(self) -> str:
        """What may be said about it elsewhere: no absolute path."""
        return Path(self.name).name if Path(self.name).is_absolute() else self.name

    def file(self, name: str) -> Path | None:
        """Returns a file of the model, from the Hub if need be; None where it has none of that name."""
        if Path(self.name).is_dir():
            path = Path(self.name, name)
            return path if path.is_file() else None
        try:
            return Path(hf_hub_download(self.name, name, revision=self.revision))
        except EntryNotFoundError:
            return None

    def tokenizer(self) -> Path:
        """Returns the folder with its tokenizer, from the Hub if need be.

        Raises:
            OSError: There is no such model, or it cannot be fetched.
        """
        if Path(self.name).is_dir():
            return Path(self.name)
        return Path(snapshot_download(self.name, revision=self.revision, allow_patterns=list(TOKENIZER)))

    def config(self) -> Any:  # noqa: ANN401  # transformers ships no types that hold
        """Returns the configuration of its language part.

        Raises:
            OptionsError: Transformers cannot load such a model, or only with code of its own.
            OSError: There is no such model.
        """
        try:
            return AutoConfig.from_pretrained(self.name, revision=self.revision).get_text_config()
        except ValueError as error:
            raise OptionsError(f"`{self.name}` cannot be loaded: {error}") from error

    def chat_templates(self) -> dict[str, str]:
        """Returns its chat templates as transformers picks them: `default`, and `tool_use` where it has one."""
        files = {name: self.file(path) for name, path in TEMPLATES.items()}
        if found := {name: path.read_text(encoding="utf-8") for name, path in files.items() if path is not None}:
            return found
        config = self.file("tokenizer_config.json")
        listed = None if config is None else json.loads(config.read_text(encoding="utf-8")).get("chat_template")
        if isinstance(listed, list):
            return {entry["name"]: entry["template"] for entry in listed if entry["name"] in TEMPLATES}
        return {"default": listed} if isinstance(listed, str) else {}


def write_builtin(folder: Path, shards: Shards, seed: int) -> None:
    """Writes a tiny random model that fits a dataset: its vocabulary, its longest row, its stop token."""
    stops = shards.manifest["stop_ids"] or [None]
    set_seed(seed)
    config = LlamaConfig(
        vocab_size=shards.manifest["vocabulary_size"],
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=max(shards.longest, shards.manifest["max_length"] or 0),
        tie_word_embeddings=False,  # a tied random head cannot sharpen under an adapter
        bos_token_id=None,
        eos_token_id=stops if len(stops) > 1 else stops[0],
        pad_token_id=shards.generation.get("pad_token_id", stops[0]),
    )
    LlamaForCausalLM(config).save_pretrained(folder)
