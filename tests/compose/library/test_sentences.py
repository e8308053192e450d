"""Sentence vectors beside words: the mean of a text's tokens, of unit length, whatever stands beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from orbit4d.compose import retrieve
from orbit4d.compose.cli.plan import plan
from orbit4d.compose.library.sentences import sentence_encoder
from orbit4d.datasets import InputError
from orbit4d.datasets.commands.command import run

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "fox", "horse", "runs", "walk", "run"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of random weights, as sentence-transformers' folders hold one."""
    from transformers import BertConfig, BertModel

    home = tmp_path_factory.mktemp("bert")
    (home / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(home)
    return home


def test_vectors_are_the_mean_of_the_tokens(folder: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    encode = sentence_encoder(str(folder))
    found = encode(["a red fox", "horse", "a red fox"])
    assert found.shape == (3, 16) and np.allclose(np.linalg.norm(found, axis=1), 1)
    assert np.array_equal(found[0], found[2])
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        tokens = model(**tokenizer("horse", return_tensors="pt")).last_hidden_state[0].double()
    mean = tokens.mean(dim=0).numpy()
    # float32 of another length of padding.
    assert np.allclose(found[1], mean / np.linalg.norm(mean), atol=1e-5)


def test_the_cosine_is_added_and_scores_stay_in_their_range(folder: Path) -> None:
    library = [
        {"uid": "one", "caption": "a red fox", "action": "Walk", "action_index": 0},
        {"uid": "two", "caption": "a horse", "action": "Walk", "action_index": 0},
    ]
    plain = retrieve("horse", "walk", library)
    wide = retrieve("horse", "walk", library, sentence_encoder(str(folder)))
    assert plain[0][0] == wide[0][0] == "two"
    assert all(0 <= score <= 1.5 for _, _, score in wide) and [s for *_, s in wide] != [s for *_, s in plain]


def test_absent_weights_are_said_and_nothing_is_loaded_from_afar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    with pytest.raises(InputError, match="leave --encoder out"):
        sentence_encoder("all-MiniLM-L6-v2")
    monkeypatch.undo()
    with pytest.raises(InputError, match="no such folder; take all-MiniLM-L6-v2"):
        sentence_encoder("org/some-model")
    with pytest.raises(InputError, match=r"holds no config\.json"):
        sentence_encoder(str(tmp_path))
    table = tmp_path / "actions.csv"
    table.write_text("uid,action,caption\nfox,Walk,a fox\n", encoding="utf-8")
    assert run(plan, ["a fox", "--library", str(table), "--encoder", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "holds no config.json" in err and err.count("\n") == 1
