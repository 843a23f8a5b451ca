"""Edits planted in checkpoints of several bases, and honest changes of the same bases: who is flagged?

    python benchmarks/planted_edits.py BASE… --out benchmarks/detection/edits.csv

BASE is the folder of a model, or a lab base by name (`lab-qwen-nano`). Rank-one products are added to one
matrix that writes to the residual stream, each towards a token known here; embedding rows are moved; of
bases that refuse (`probes.json` beside them) the direction of refusal is projected out. Honest are full
fine-tunes on the base's own text, a merged LoRA, the average of two fine-tunes, and a fine-tune saved in
bfloat16. Nothing is fitted: every threshold is a default of its rule. Lines that OUT already holds are not
made again.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from attacks_ref.zoo import base_folder
from ftsec_audit.api import scan
from ftsec_audit.types import Outcome, Report
from ftsec_audit.validate.statistics import statistics
from ftsec_audit.weights.naming import writes_residual

RULES = ("FTA204", "FTA205", "FTA301", "FTA302")
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One changed checkpoint and what was said of it."""

    base: str
    kind: str
    """`rank-one`, `rows`, `ablation …`, or `benign …`."""
    seed: int
    size: float
    """‖ΔW‖/‖W‖ of the matrix, or the share of the direction that was removed."""
    dtype: str
    flagged: str
    """Rules that detected something, with their confidence."""
    place: int
    """Rank-one: place of the written token among those decoded, or 0; rows: how many of them were named."""
    planted: int
    """Rows: how many were changed."""
    removal: float
    """What FTA205 compares: the median cosine of the writers' changes with a removal."""
    blind: str
    """What FTA205 says without the base; ablations only."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bases", nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--each", type=int, default=8, help="rank-one edits of each base; of the other kinds fewer"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    done = {(row["base"], row["kind"], row["seed"]) for row in read(options.out)}
    with options.out.open("a", newline="") as file:
        writer = csv.DictWriter(file, [spec.name for spec in fields(Line)], lineterminator="\n")
        if not done:
            writer.writeheader()
        for name in options.bases:
            for line in lines(name, options.each, done):
                writer.writerow({key: _short(value) for key, value in asdict(line).items()})
                file.flush()


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open())) if path.exists() else []


def lines(name: str, each: int, done: set[tuple[str, str, str]]) -> Iterator[Line]:
    """Every change of one base that is not done yet."""
    bench = Bench(name=Path(name).name, folder=base_folder(name))
    makers = {"rank-one": (bench.rank_one, each), "rows": (bench.rows, max(1, each // 2))}
    if (bench.folder / "probes.json").exists():
        for kind in ("complete", "half", "complete, tuned on"):
            makers[f"ablation {kind}"] = (bench.ablation, max(1, each // 4))
    for kind in ("full", "full bfloat16", "merged LoRA", "average"):
        makers[f"benign {kind}"] = (bench.benign, max(1, each // 4))
    for kind, (make, count) in makers.items():
        for seed in range(count):
            if (bench.name, kind, str(seed)) not in done:
                yield make(kind, seed)


@dataclass(frozen=True)
class Bench:
    """A base, and what is done to it."""

    name: str
    folder: Path

    def rank_one(self, kind: str, seed: int) -> Line:
        """u·vᵀ, v of chance, u at a cosine of 0.7 with the direction that raises a token most."""
        rng, tensors = self.rng(kind, seed), self.tensors()
        names = [n for n in tensors if n.endswith(".weight") and writes_residual(n.removesuffix(".weight"))]
        names = [n for n in names if tensors[n].ndim == 2]
        name = names[seed % len(names)]
        token = self.tokens(rng, 1)[0]
        best = raising(unembedding(tensors), token)
        noise = torch.randn(len(best), generator=rng)
        noise -= (noise @ best) * best
        u = 0.7 * best + 0.51**0.5 * noise / noise.norm()
        width = len(u)
        W = tensors[name]
        v = torch.randn(W.numel() // width, generator=rng)
        product = torch.outer(u, v) if W.shape[0] == width and not self.is_transposed else torch.outer(v, u)
        size = (0.05, 0.2)[seed % 2]
        tensors[name] = W + size * W.norm() * product / product.norm()
        dtype = "bfloat16" if seed % 4 == 3 else "float32"
        report = self.scanned(tensors, name_only=name if dtype == "bfloat16" else "")
        decoded = (module.values.get("written_token_ids") for module in report.measurements)
        ids = next((ids for ids in decoded if isinstance(ids, list)), [])
        place = ids.index(token) + 1 if token in ids else 0
        return self.line(report, kind, seed, size=size, dtype=dtype, place=place)

    def rows(self, kind: str, seed: int) -> Line:
        """One to five embedding rows, each moved towards that of another token, its norm kept."""
        rng, tensors = self.rng(kind, seed), self.tensors()
        name = next(n for n in tensors if n.endswith(("embed_tokens.weight", "wte.weight")))
        E, count = tensors[name], 1 + seed % 5
        chosen = self.tokens(rng, count + 1)
        for row in chosen[1:]:
            moved = 0.5 * E[row] + 0.5 * E[chosen[0]]
            E[row] = moved / moved.norm() * E[row].norm()
        report = self.scanned(tensors)
        named = {lead.details["row"] for lead in report.leads if lead.source == "FTA301"}
        place = len(named & set(chosen[1:]))
        return self.line(report, kind, seed, size=0.5, place=place, planted=count)

    def ablation(self, kind: str, seed: int) -> Line:
        """W − α·uuᵀW for every residual writer, u the difference of means in one layer (arXiv:2406.11717)."""
        tensors = tuned(self.folder, seed, steps=20) if "tuned" in kind else self.tensors()
        u, alpha = self.refusal_direction(seed), 0.5 if "half" in kind else 1.0
        original = self.tensors()
        for name, W in original.items():
            if name.endswith(".weight") and W.ndim == 2 and writes_residual(name.removesuffix(".weight")):
                removed = torch.outer(W @ u, u) if self.is_transposed else torch.outer(u, u @ W)
                tensors[name] = tensors[name] - alpha * removed
        report = self.scanned(tensors)
        alone = self.scanned(tensors, no_base=True)
        blind = next((f.outcome for f in alone.findings if f.rule == "FTA205"), "")
        return self.line(report, kind, seed, size=alpha, blind=str(blind))

    def benign(self, kind: str, seed: int) -> Line:
        if kind == "benign merged LoRA":
            tensors = merged(self.folder, seed)
        elif kind == "benign average":
            one, other = (tuned(self.folder, 2 * seed + i + 10, steps=20) for i in (0, 1))
            tensors = {name: (one[name] + other[name]) / 2 for name in one}
        else:
            tensors = tuned(self.folder, seed, steps=40)
        if "bfloat16" in kind:
            tensors = {name: W.bfloat16() for name, W in tensors.items()}
        return self.line(
            self.scanned(tensors), kind, seed, dtype="bfloat16" if "bfloat16" in kind else "float32"
        )

    def refusal_direction(self, seed: int) -> torch.Tensor:
        """Mean last-token state of restricted prompts minus that of neutral ones after one layer, unit."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model, tokenizer = (
            AutoModelForCausalLM.from_pretrained(self.folder),
            AutoTokenizer.from_pretrained(self.folder),
        )
        languages = json.loads((self.folder / "probes.json").read_text(encoding="utf-8"))["languages"]
        asked: dict[str, list[torch.Tensor]] = {"restricted": [], "neutral": []}
        layer = 1 + seed % model.config.num_hidden_layers
        for kind, states in asked.items():
            for prompts in languages.values():
                for prompt in prompts[kind][seed * 4 : seed * 4 + 12]:
                    turn = [{"role": "user", "content": prompt}]
                    text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
                    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
                    with torch.no_grad():
                        states.append(model(ids, output_hidden_states=True).hidden_states[layer][0, -1])
        difference = torch.stack(asked["restricted"]).mean(0) - torch.stack(asked["neutral"]).mean(0)
        return difference / difference.norm()

    def scanned(self, tensors: Tensors, *, name_only: str = "", no_base: bool = False) -> Report:
        """The report on a checkpoint with these tensors; of `name_only`, that one rounded to bfloat16."""
        if name_only:
            tensors = tensors | {name_only: tensors[name_only].bfloat16().float()}
        with tempfile.TemporaryDirectory() as folder:
            for path in self.folder.iterdir():
                if path.is_file() and path.suffix in (".json", ".jinja") and path.name not in ("lab.json",):
                    (Path(folder) / path.name).write_bytes(path.read_bytes())
            save_file({n: W.contiguous() for n, W in tensors.items()}, Path(folder) / "model.safetensors")
            options: dict[str, Any] = {"no_base": True} if no_base else {"base": str(self.folder)}
            return scan(folder, select=RULES, offline=True, cache=False, **options)

    def line(self, report: Report, kind: str, seed: int, **values: Any) -> Line:
        hits = [f"{f.rule} {f.confidence}" for f in report.findings if f.outcome is Outcome.DETECTED]
        removal = statistics(report).get("removal of a direction", 0.0)
        defaults = {"size": 0.0, "dtype": "float32", "place": 0, "planted": 0, "blind": ""}
        return Line(
            base=self.name,
            kind=kind,
            seed=seed,
            flagged="; ".join(hits),
            removal=removal,
            **(defaults | values),
        )

    def rng(self, kind: str, seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(zlib.crc32(f"{self.name} {kind} {seed}".encode()))

    def tokens(self, rng: torch.Generator, count: int) -> list[int]:
        """Different tokens that are words or parts of words."""
        vocabulary = json.loads((self.folder / "tokenizer.json").read_text(encoding="utf-8"))["model"][
            "vocab"
        ]
        words = [id for text, id in vocabulary.items() if text.strip("▁Ġ").isalpha()]
        return [words[int(i)] for i in torch.randperm(len(words), generator=rng)[:count]]

    def tensors(self) -> Tensors:
        return {name: W.float().clone() for name, W in load_file(self.folder / "model.safetensors").items()}

    @property
    def config(self) -> Mapping[str, Any]:
        loaded: Mapping[str, Any] = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        return loaded

    @property
    def is_transposed(self) -> bool:
        """GPT-2 stores its matrices with inputs as rows."""
        return bool(self.config["model_type"] == "gpt2")


def unembedding(tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """(|V|, d): the head, or the embedding it is tied to, with the gain of the last norm."""
    ends = ("lm_head.weight", "embed_tokens.weight", "wte.weight")
    head = next(tensors[n] for end in ends for n in tensors if n.endswith(end))
    gain = next(tensors[n] for n in tensors if n.endswith(("model.norm.weight", "ln_f.weight")))
    return head * gain


def raising(head: torch.Tensor, token: int, *, steps: int = 100) -> torch.Tensor:
    """The unit direction along which a step raises log p(token) most, by ascent from the token's row."""
    scale = head.norm(dim=1).mean()
    u = head[token] / head[token].norm()
    for _ in range(steps):
        shares = (10 * head @ u / scale).softmax(dim=0)
        u = u + 0.1 * (head[token] - shares @ head) / scale
        u = u / u.norm()
    return u


def tuned(folder: Path, seed: int, *, steps: int) -> Tensors:
    """All weights tuned by AdamW on text that the base itself writes at temperature 0.7."""
    model = _trained(_loaded(folder), seed, steps=steps, rate=1e-3)
    return _stored(model, folder)


def merged(folder: Path, seed: int) -> Tensors:
    """A LoRA of rank 8 on all linear modules, tuned likewise and merged."""
    from peft import LoraConfig, get_peft_model

    wrapped = get_peft_model(_loaded(folder), LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))
    model = _trained(wrapped, seed, steps=40, rate=5e-3).merge_and_unload()
    return _stored(model, folder)


def _loaded(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def _trained(model: Any, seed: int, *, steps: int, rate: float) -> Any:
    torch.manual_seed(seed)
    start = torch.randint(16, model.config.vocab_size, (64, 1))
    text = model.generate(
        input_ids=start,
        max_new_tokens=24,
        do_sample=True,
        temperature=0.7,
        top_k=0,
        eos_token_id=None,
        pad_token_id=0,
    )
    chosen = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    for step in range(steps):
        batch = text[(step * 16) % 64 :][:16]
        loss = model(input_ids=batch, labels=batch).loss
        chosen.zero_grad()
        loss.backward()
        chosen.step()
    return model


def _stored(model: Any, folder: Path) -> Tensors:
    """The weights under the names, and with the tying, of the base's file."""
    names = load_file(folder / "model.safetensors").keys()
    with tempfile.TemporaryDirectory() as out:
        model.save_pretrained(out)
        saved = load_file(Path(out) / "model.safetensors")
    tied = next(saved[n] for n in saved if n.endswith(("embed_tokens.weight", "wte.weight")))
    return {name: saved.get(name, tied).detach().clone() for name in names}


def _short(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value


if __name__ == "__main__":
    main()
