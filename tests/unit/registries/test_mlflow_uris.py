"""What model URIs stand for; nothing is asked."""

from __future__ import annotations

import pytest

from pipeline.artifacts import PromotionRequest
from pipeline.errors import RequestError
from pipeline.registries.mlflow_uris import ModelUri, model_uri_from_text

ID = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("models:/fraud/8", {"request": PromotionRequest(model="fraud", version=8)}),
        ("models:/fraud@champion", {"request": PromotionRequest(model="fraud", alias="champion")}),
        ("models:/a@b@c", {"request": PromotionRequest(model="a@b", alias="c")}),
        ("models:/a b/1", {"request": PromotionRequest(model="a b", version=1)}),
        (f"models:/m-{ID}", {"model_id": f"m-{ID}"}),
        (f"models:/m-{ID}/1", {"request": PromotionRequest(model=f"m-{ID}", version=1)}),
        (f"runs:/{ID}/model", {"run_id": ID, "path": "model"}),
        (f"runs:/{ID}/deep/model/", {"run_id": ID, "path": "deep/model"}),
    ],
)
def test_a_uri_names_one_thing(text: str, expected: dict[str, object]) -> None:
    assert model_uri_from_text(text) == ModelUri(text=text, **expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("wanted", ["Production", "latest", "0", "-1", "1.5"])
def test_what_may_be_another_version_tomorrow_is_refused(wanted: str) -> None:
    with pytest.raises(
        RequestError, match=f"{wanted!r} is neither a number nor an alias"
    ) as raised:
        model_uri_from_text(f"models:/fraud/{wanted}")
    assert "models:/fraud@ALIAS" in raised.value.hint


@pytest.mark.parametrize(
    "text", ["s3://bucket/model", "/tmp/model", "models:/", "models:/a", f"runs:/{ID}", "runs:/x/m"]
)
def test_what_is_not_registered_is_refused_with_how_to_register_it(text: str) -> None:
    with pytest.raises(RequestError, match="names no version") as raised:
        model_uri_from_text(text)
    assert "mlflow.register_model" in raised.value.hint
