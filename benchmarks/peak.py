"""What one thread of this machine can do: products and memory.

python benchmarks/peak.py"""

import numpy as np
import pairs
import torch


def main():
    "Print the section."
    pairs.section("The machine")
    rows = []
    for dtype in (torch.float32, torch.bfloat16) if pairs.has_bfloat16() else (torch.float32,):
        found = [pairs.gemm_peak(dtype) / 1e9 for _ in range(5)]
        rows.append([f"product of two 1024 × 1024, {dtype}, GFLOP/s", pairs.spread(found)])
    if not pairs.has_bfloat16():
        rows.append(["product, bfloat16", "no bfloat16 units here"])
    found = np.array([pairs.bandwidth() for _ in range(5)]) / 1e9
    rows.append(["memory read, GB/s", pairs.spread(found)])
    print(pairs.table(["", "min / median / max"], rows))


if __name__ == "__main__":
    main()
