"""The routes that the explorer page needs beside those of the lists: names, search, users."""

from typing import Annotated, Any

from litestar import Controller, get
from litestar.di import NamedDependency, Provide
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example
from litestar.params import QueryParameter
from msgspec import Meta, Struct

from serving.contract import ContractError, Id, encode_id, search_range
from serving.names import ProductDirectory
from serving.problems import ACCESS_RESPONSES, BAD_REQUEST, UNAVAILABLE, refused
from serving.store import RecommendationStore

MAX_NAMES = 200
"""How many names are answered at once, at most."""


class NamedProduct(Struct, frozen=True, kw_only=True):
    """A product and its name."""

    product_id: Id
    name: str


class FoundProducts(Struct, frozen=True, kw_only=True):
    """The products that a search finds, in the order of what it found in their names."""

    products: list[NamedProduct]


class ProductNames(Struct, frozen=True, kw_only=True):
    """Names of products."""

    names: Annotated[
        dict[str, str],
        Meta(description="Names by product id, of those asked for that have one."),
    ]


class ExampleUsers(Struct, frozen=True, kw_only=True):
    """A few users who have lists."""

    user_ids: list[Id]


Directory = NamedDependency[ProductDirectory]
Search = Annotated[
    str,
    QueryParameter(
        min_length=1,
        max_length=100,
        description="The first letters of words of a name, in their order.",
        examples=[Example(summary="part of a name", value="milk")],
    ),
]
ProductIds = Annotated[
    list[str],
    QueryParameter(
        min_items=1,
        max_items=MAX_NAMES,
        description="The shop's id of a product; repeat it for each.",
        examples=[Example(summary="two products", value=["1082185", "995242"])],
    ),
]
Limit = Annotated[int, QueryParameter(ge=1, le=50, description="Products to answer, at most.")]


def _responses(answer: type[Any], description: str, example: Any) -> dict[int, ResponseSpec]:
    return {
        200: ResponseSpec(answer, description=description, examples=[Example(value=example)]),
        400: BAD_REQUEST,
        **ACCESS_RESPONSES,
        503: UNAVAILABLE,
    }


def _directory(store: NamedDependency[RecommendationStore]) -> ProductDirectory:
    return ProductDirectory(store)


class ExplorerController(Controller):
    """What people need who look at the lists."""

    path = "/api/explorer"
    tags = ("Explorer",)
    dependencies = {"directory": Provide(_directory, sync_to_thread=False)}  # noqa: RUF012

    @get(
        "/products",
        summary="Search",
        responses=_responses(
            FoundProducts,
            "The products found; empty where none is, or no names are published.",
            {"products": [{"product_id": 1082185, "name": "Bananas"}]},
        ),
    )
    async def products(
        self, directory: Directory, search: Search, limit: Limit = 10
    ) -> FoundProducts:
        """Products by part of their name, whatever the case and the accents."""
        try:
            bounds = search_range(search)
        except ContractError as error:
            raise refused("search", error) from error
        found = await directory.search(bounds, limit)
        return FoundProducts(
            products=[NamedProduct(product_id=key, name=name) for key, name in found.items()]
        )

    @get(
        "/names",
        summary="Names",
        responses=_responses(
            ProductNames,
            "The names; those are left out that are not published.",
            {"names": {"1082185": "Bananas"}},
        ),
    )
    async def names(self, directory: Directory, product_id: ProductIds) -> ProductNames:
        """The names of some products."""
        try:
            ids = list(dict.fromkeys(map(encode_id, product_id)))
        except ContractError as error:
            raise refused("product_id", error) from error
        return ProductNames(names=await directory.names(ids))

    @get(
        "/users",
        summary="Example users",
        responses=_responses(
            ExampleUsers,
            "The users with the most purchases; empty when nothing is published.",
            {"user_ids": [1, 22, 7]},
        ),
    )
    async def users(self, directory: Directory) -> ExampleUsers:
        """A few users to begin with."""
        return ExampleUsers(user_ids=await directory.example_users())
