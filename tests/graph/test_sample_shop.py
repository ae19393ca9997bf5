"""The whole graph on real orders: what every list must be, and one of them counted in SQL."""

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.graphs import Graph, failed_checks, metadata, products

BOUGHT_TOGETHER = re.compile("product:.+:bought_together")


def test_the_sample_shop(small_sample_database_url: str, graph: Graph):
    sample = replace(graph, database_url=small_sample_database_url)
    result = sample.run(force=False)
    assert result.success
    assert failed_checks(result) == {}
    published = sample.published()
    assert metadata(result, "top_buys_backtest")["verdict"] == "proven"
    assert metadata(result, "bought_together_backtest")["verdict"] == "proven"
    personal = [key for key in published if key.startswith("user:") and key.endswith(":top_buys")]
    assert len(personal) == 200
    for key in personal:
        ranked = products(published[key])
        assert len({product for product, _ in ranked}) == 120
        assert [score for _, score in ranked] == sorted((s for _, s in ranked), reverse=True)
    assert len(products(published["global:top_buys"])) == 120
    together = {key: value for key, value in published.items() if BOUGHT_TOGETHER.fullmatch(key)}
    assert len(together) == metadata(result, "bought_together")["products"] > 300
    for key, pairs in together.items():
        assert 1 <= len(pairs) <= 60
        assert key.split(":")[1] not in dict(pairs)
    key = max(together, key=lambda key: len(together[key]))
    assert dict(together[key]) == pytest.approx(
        dict(companions(sample, int(key.split(":")[1]))), abs=1e-6
    )


def companions(graph: Graph, product: int) -> Iterator[tuple[str, float]]:
    """The sixty strongest companions of a product, counted the plain way, in SQL."""
    with graph.database() as connection:
        rows = connection.execute(
            """
            WITH lines AS (
                SELECT DISTINCT order_id, product_id FROM order_items WHERE quantity > 0
            ), baskets AS (
                SELECT order_id FROM lines GROUP BY 1 HAVING count(*) BETWEEN 2 AND 100
            ), l AS (SELECT * FROM lines JOIN baskets USING (order_id)),
            n AS (SELECT product_id, count(*) AS n FROM l GROUP BY 1)
            SELECT b.product_id::text, count(*) / (max(n_a.n)::float8 * max(n_b.n)
                / (SELECT count(*) FROM baskets) + 3 + max(n_a.n) / 10.0) AS strength, count(*)
            FROM l a JOIN l b USING (order_id)
            JOIN n n_a ON n_a.product_id = a.product_id JOIN n n_b ON n_b.product_id = b.product_id
            WHERE a.product_id = %s AND b.product_id <> a.product_id
            GROUP BY b.product_id HAVING count(*) >= 2
            ORDER BY strength DESC, count(*) DESC, b.product_id LIMIT 60
            """,
            [product],
        ).fetchall()
    for other, strength, _ in rows:
        yield other, strength
