"""Mining the sample shop's product pairs: ours beside mlxtend, a sparse product and C FP-Growth.

    .venv/bin/python benchmarks/mining.py            a minute
    .venv/bin/python benchmarks/mining.py --full     with mlxtend at every minimum

All peers run in turn in every round on the same baskets; a table gives the median of the rounds.
Timed is the mining alone, from each peer's input in memory to its itemsets of one and two
products, in whatever form it returns them:

- ours: `frequent_itemsets` from the CSR matrix;
- scipy: the whole product of the transposed matrix and itself, the upper triangle of it kept;
- mlxtend: `fpgrowth(max_len=2)` from a sparse DataFrame that already holds only the frequent
  products; one round, for it is slow;
- pyfim: `fpgrowth(zmin=1, zmax=2)`, compiled C, from a list of lists of ints. It is not a
  dependency: `pip install pyfim` builds it.

All results are compared with ours, itemset by itemset. Peak memory is that of a whole process,
which loads the matrix, builds the peer's input from it and mines once.
"""

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import scipy
from mlxtend.frequent_patterns import fpgrowth
from rich import box
from rich.console import Console
from rich.table import Table
from scipy import sparse

from recsys_assets.learn.baskets import Baskets, baskets_from_lines
from recsys_assets.learn.itemsets import frequent_itemsets
from recsys_assets.learn.pairs import column_counts
from recsys_assets.local.sample_shop import sample_lines

try:
    import fim
except ImportError:
    fim = None

MINIMA = (156, 78, 31, 16)
MLXTEND_MINIMA = (156, 78)

Sets = tuple[np.ndarray, np.ndarray]
"""All itemsets of one and two products: members [S, 2] (-1 beside one product) and orders [S]."""


@dataclass(frozen=True)
class Peer:
    """A miner: what it needs, how it mines, how its result is read."""

    prepare: Callable[[Baskets, int], Any]
    mine: Callable[[Any, int], Any]
    read: Callable[[Baskets, int, Any], Sets]


def in_order(members: np.ndarray, orders: np.ndarray) -> Sets:
    """The same sets in the one order that makes two results comparable."""
    members = np.sort(members, axis=1)
    order = np.lexsort(members.T[::-1])
    return members[order], orders[order]


def sets_of(singles: np.ndarray, pairs: np.ndarray, orders: list[np.ndarray]) -> Sets:
    """Single products, int [S1], and pairs, int [S2, 2], as sets."""
    alone = np.column_stack([singles, np.full(len(singles), -1)])
    return in_order(np.concatenate([alone, pairs]), np.concatenate(orders))


def sets_of_tuples(found: list[tuple[Any, float]]) -> Sets:
    """Tuples of products with their orders, as sets."""
    members = np.full((len(found), 2), -1)
    for row, (items, _) in enumerate(found):
        members[row, : len(items)] = sorted(items)
    return in_order(members, np.array([orders for _, orders in found]))


def scipy_product(matrix: Any, min_orders: int) -> tuple[np.ndarray, Any]:
    """The plain way: one product counts every pair twice and every product once."""
    columns = np.flatnonzero(column_counts(matrix) >= min_orders)
    kept = matrix[:, columns].astype(np.int32)
    shared = sparse.triu(kept.T @ kept, format="coo")
    enough = shared.data >= min_orders
    rows, cols = shared.coords
    pairs = np.column_stack([columns[rows[enough]], columns[cols[enough]]])
    return pairs, shared.data[enough]


def read_scipy(_baskets: Baskets, _min_orders: int, result: Any) -> Sets:
    """The diagonal holds the single products."""
    pairs, orders = result
    single = pairs[:, 0] == pairs[:, 1]
    return sets_of(pairs[single, 0], pairs[~single], [orders[single], orders[~single]])


def frequent_frame(baskets: Baskets, min_orders: int) -> pd.DataFrame:
    """mlxtend's input, of the frequent products alone, which it numbers from 0."""
    columns = np.flatnonzero(column_counts(baskets.matrix) >= min_orders)
    return pd.DataFrame.sparse.from_spmatrix(
        sparse.csr_matrix(baskets.matrix[:, columns], dtype=bool)
    )


def mlxtend_fpgrowth(frame: pd.DataFrame, min_orders: int) -> pd.DataFrame:
    """FP-Growth in Python. It rounds the fraction up to a count: half an order less is safe."""
    return fpgrowth(frame, min_support=(min_orders - 0.5) / len(frame), max_len=2)


def read_mlxtend(baskets: Baskets, min_orders: int, result: pd.DataFrame) -> Sets:
    """Numbers become product indices and fractions become counts again."""
    columns = np.flatnonzero(column_counts(baskets.matrix) >= min_orders)
    orders = np.rint(result["support"].to_numpy() * baskets.n_orders).astype(int)
    itemsets = [columns[list(items)] for items in result["itemsets"]]
    return sets_of_tuples(list(zip(itemsets, orders, strict=True)))


PEERS = {
    "ours": Peer(
        prepare=lambda baskets, _: baskets,
        mine=lambda baskets, min_orders: frequent_itemsets(baskets, min_orders=min_orders),
        read=lambda _baskets, _min_orders, result: sets_of(
            result.members[0][:, 0], result.members[1], list(result.orders)
        ),
    ),
    "scipy": Peer(
        prepare=lambda baskets, _: baskets.matrix,
        mine=scipy_product,
        read=read_scipy,
    ),
    "mlxtend": Peer(prepare=frequent_frame, mine=mlxtend_fpgrowth, read=read_mlxtend),
}
if fim:
    PEERS["pyfim"] = Peer(
        prepare=lambda baskets, _: [
            row.tolist() for row in np.split(baskets.matrix.indices, baskets.matrix.indptr[1:-1])
        ],
        mine=lambda rows, least: fim.fpgrowth(rows, target="s", supp=-least, zmin=1, zmax=2),
        read=lambda _baskets, _min_orders, result: sets_of_tuples(result),
    )


def sample_baskets() -> Baskets:
    """The sample shop's baskets, by the rules that the assets keep."""
    lines = sample_lines()
    lines = lines.filter(pc.greater(lines["quantity"], 0))
    return baskets_from_lines(lines["basket_id"], lines["product_id"])[0]


def measured(
    baskets: Baskets, min_orders: int, names: list[str], rounds: int
) -> tuple[dict[str, float], int]:
    """Median seconds of each peer, and how many pairs all agree on.

    Raises:
        SystemExit: a peer that found other itemsets than ours.
    """
    inputs = {name: PEERS[name].prepare(baskets, min_orders) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    results = {}
    for turn in range(rounds):
        for name in names:
            if name == "mlxtend" and turn > 0:
                continue
            start = time.perf_counter()
            results[name] = PEERS[name].mine(inputs[name], min_orders)
            seconds[name].append(time.perf_counter() - start)
    ours, *others = (PEERS[name].read(baskets, min_orders, results[name]) for name in names)
    for name, other in zip(names[1:], others, strict=True):
        if not all(np.array_equal(a, b) for a, b in zip(ours, other, strict=True)):
            sys.exit(f"{name} found other itemsets than ours at a minimum of {min_orders} orders")
    return {name: statistics.median(seconds[name]) for name in names}, len(
        results["ours"].orders[1]
    )


def peak_megabytes(matrix_file: Path, name: str, min_orders: int) -> float:
    """Peak resident memory of a process of its own that mines once."""
    command = [sys.executable, __file__, "--peak-of", name, str(min_orders), str(matrix_file)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def mine_once(name: str, min_orders: int, matrix_file: Path) -> None:
    """The process whose peak memory is measured: prints it in MB."""
    matrix = sparse.csr_array(sparse.load_npz(matrix_file))
    baskets = Baskets(matrix, np.arange(matrix.shape[1]))
    PEERS[name].mine(PEERS[name].prepare(baskets, min_orders), min_orders)
    print(own_peak_bytes() / 1e6)


def own_peak_bytes() -> int:
    """Peak resident memory of this process."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, ru_maxrss also counts what the parent had when it forked
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def machine() -> str:
    """What the numbers were measured on."""
    info = Path("/proc/cpuinfo")
    models = [
        line.split(":", 1)[1].strip()
        for line in (info.read_text().splitlines() if info.exists() else [])
        if line.startswith("model name")
    ]
    model = models[0] if models else platform.processor()
    return (
        f"{model}, {os.cpu_count()} cores; {platform.system()}; Python"
        f" {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}"
    )


def run(minima: list[int], rounds: int, *, full: bool) -> None:
    """Measure every minimum and print the tables."""
    baskets = sample_baskets()
    peers = [name for name in PEERS if name != "mlxtend"]
    slow = minima if full else [m for m in minima if m in MLXTEND_MINIMA]
    times = Table("min orders", "pairs", "ours", box=box.MARKDOWN)
    memory = Table("min orders", *PEERS, box=box.MARKDOWN)
    for name in list(PEERS)[1:]:
        times.add_column(name, justify="right")
        times.add_column(f"{name} / ours", justify="right")
    with tempfile.TemporaryDirectory() as folder:
        matrix_file = Path(folder) / "matrix.npz"
        sparse.save_npz(matrix_file, baskets.matrix)
        for minimum in minima:
            names = [name for name in PEERS if name in peers or minimum in slow]
            seconds, pairs = measured(baskets, minimum, names, rounds)
            cells = [str(minimum), f"{pairs:,}", f"{seconds['ours']:.3f} s"]
            for name in list(PEERS)[1:]:
                known = name in seconds
                cells.append(f"{seconds[name]:.2f} s" if known else "-")
                cells.append(f"{seconds[name] / seconds['ours']:.1f}" if known else "-")
            times.add_row(*cells)
            peaks = {name: f"{peak_megabytes(matrix_file, name, minimum):.0f} MB" for name in names}
            memory.add_row(str(minimum), *(peaks.get(name, "-") for name in PEERS))

    console = Console(width=110, highlight=False)
    console.print(machine())
    console.print(
        f"{baskets.n_orders:,} baskets, {baskets.matrix.nnz:,} products in them;"
        f" median of {rounds} rounds (mlxtend: one); all itemsets identical"
    )
    if not fim:
        console.print("pyfim is not installed (pip install pyfim): left out")
    console.print("\nMatrix in memory -> itemsets of one and two products", times)
    console.print("\nPeak memory of a process that does it once", memory)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minima", type=int, nargs="+", default=list(MINIMA), help="orders")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--full", action="store_true", help="mlxtend at every minimum")
    parser.add_argument("--peak-of", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak_of:
        name, min_orders, matrix_file = arguments.peak_of
        mine_once(name, int(min_orders), Path(matrix_file))
    else:
        run(arguments.minima, arguments.rounds, full=arguments.full)


if __name__ == "__main__":
    main()
