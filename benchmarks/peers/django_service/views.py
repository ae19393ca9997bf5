"""The view of the project."""

import json

import redis
from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_GET

from serving.contract import global_top_buys_key, user_top_buys_key

client = redis.Redis.from_url(settings.REDIS_URL)


@require_GET
def top_buys(request: HttpRequest) -> JsonResponse:
    """The user's list, or the guests'."""
    try:
        user_id = int(request.GET["user_id"]) if "user_id" in request.GET else None
        limit = min(max(int(request.GET.get("limit", 10)), 1), 100)
    except ValueError:
        return JsonResponse({"error": "user_id and limit are integers"}, status=400)
    data = None if user_id is None else client.get(user_top_buys_key(user_id))
    data = data or client.get(global_top_buys_key())
    if data is None:
        return JsonResponse({"error": "nothing is published"}, status=503)
    stored = json.loads(data)
    return JsonResponse(
        {
            "user_id": user_id,
            "source": stored["source"],
            "model_version": stored["model_version"],
            "generated_at": stored["generated_at"],
            "orders_through": stored["orders_through"],
            "products": stored["products"][:limit],
        }
    )
