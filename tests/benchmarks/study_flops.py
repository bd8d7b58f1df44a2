"""What a study costs on one GPU, computed: FLOPs of the released widths, counted, over an assumed rate and price.

    python tests/benchmarks/study_flops.py [--tokens N …] [--peak T] [--peak-fp32 T] [--utilisation U] [--price P]
        [--json FILE]

Nothing is run: tensors have shapes alone (torch's meta device), and `torch.utils.flop_counter` counts multiplications
and additions of every convolution, matrix product and attention. Name encoders and the heads' small MLPs are left out.
Utilisation and price are assumptions, not measurements. The tokenizer runs in bf16, the rest in fp32:

    seconds of a study = tokenizer / (peak · utilisation) + the rest / (peak in fp32 · utilisation)
    price of 1,000 studies = 1,000 · seconds · price / 3,600, at a device that is never idle
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from prima_core.prima import Prima
from prima_core.random_weights import released

SERIES = 8  # of a study
DESCRIPTION_LETTERS = 20


@dataclass(frozen=True)
class Cost:
    """Of one study. tokens: kept patches of all series; the rest FLOPs."""

    tokens: int
    tokenizer: int
    sequence_vit: int
    study_vit: int

    @property
    def total(self) -> int:
        return self.tokenizer + self.sequence_vit + self.study_vit


def flops(work: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        work()
    return int(counter.get_total_flops())


def of_study(model: Prima, tokens: int) -> Cost:
    """A study of `SERIES` series of as many tokens each."""
    lengths = [tokens // SERIES + (number < tokens % SERIES) for number in range(SERIES)]
    shape = released()
    token_ND = torch.empty(tokens, shape.sequence_vit.transformer.width, device="meta")
    name_SD = torch.empty(SERIES, shape.sequence_vit.transformer.width, device="meta")
    series_SD = torch.empty(SERIES, shape.study_vit.transformer.width, device="meta")
    description_BD = torch.empty(1, shape.study_description.output, device="meta")
    study_BP = torch.empty(1, shape.study_vit.pooled_width, device="meta")
    one_patch = torch.empty(1, 4, 32, 32, device="meta")
    return Cost(
        tokens,
        tokens * flops(lambda: model.tokenizer(one_patch, 0)),
        flops(lambda: model.sequence_vit(name_SD, token_ND, lengths)),
        flops(lambda: model.study_vit(description_BD, series_SD, [SERIES]))
        + flops(lambda: model.study_vit.clip_vector(study_BP)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[337, 1500, 4000])
    parser.add_argument(
        "--peak", type=float, default=989.0, help="TFLOP/s of dense bf16; an H100 SXM's data sheet: 989"
    )
    parser.add_argument("--peak-fp32", type=float, default=67.0, help="TFLOP/s of fp32; an H100 SXM's data sheet: 67")
    parser.add_argument("--utilisation", type=float, default=0.2, help="share of the peak, an assumption")
    parser.add_argument("--price", type=float, default=3.0, help="of a GPU hour, an assumption")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with torch.device("meta"):
        model = Prima(released(), {}).eval()
    costs = [of_study(model, tokens) for tokens in given.tokens]
    rates = [peak * 1e12 * given.utilisation for peak in (given.peak, given.peak_fp32)]
    peaks = f"{given.peak:g} TFLOP/s (bf16), {given.peak_fp32:g} (fp32)"
    print(f"{peaks} · {given.utilisation:g}; {given.price:g} a GPU hour; {SERIES} series a study")
    print("| kept patches | tokenizer, TFLOP | sequence ViT | study ViT | in all | s | studies/h | price of 1,000 |")
    print("|" + " --- |" * 8)
    rows = []
    for cost in costs:
        seconds = cost.tokenizer / rates[0] + (cost.total - cost.tokenizer) / rates[1]
        price = 1000 * seconds * given.price / 3600
        parts = [part / 1e12 for part in (cost.tokenizer, cost.sequence_vit, cost.study_vit, cost.total)]
        numbers = " | ".join(f"{part:.3g}" for part in parts)
        print(f"| {cost.tokens:,} | {numbers} | {seconds:.2g} | {3600 / seconds:,.0f} | {price:.2g} |")
        rows.append(asdict(cost) | {"total": cost.total, "seconds": seconds, "price_of_1000": price})
    if given.json:
        assumed = {
            "peak": given.peak,
            "peak_fp32": given.peak_fp32,
            "utilisation": given.utilisation,
            "price": given.price,
            "series": SERIES,
        }
        given.json.write_text(json.dumps({"assumed": assumed, "studies": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
