"""What model URIs stand for; nothing is asked."""

from __future__ import annotations

import pytest

from pipeline.artifacts import ModelVersion, PromotionRequest
from pipeline.errors import RequestError
from pipeline.registries.mlflow_uris import MlflowModels, ModelUri, model_uri_from_text

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


class Registered(MlflowModels):
    """A registry in which these versions, as ``NAME/VERSION``, were made of the same files."""

    def __init__(self, *versions: str) -> None:
        self._found = [
            ModelVersion(name=name, version=int(number), run_id=None, source="", tags={})
            for name, number in (version.split("/") for version in versions)
        ]

    def _ready_versions(self, uri: ModelUri) -> list[ModelVersion]:
        return self._found


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        (["fraud/3"], "fraud/3"),
        (["other/3"], "other/3"),
        (["fraud/9", "fraud/10"], "fraud/10"),
        (["other/12", "fraud/3"], "fraud/3"),
    ],
)
def test_what_is_registered_stands_for_its_newest_version(
    versions: list[str], expected: str
) -> None:
    for text in (f"runs:/{ID}/model", f"models:/m-{ID}"):
        found = Registered(*versions).version_of(model_uri_from_text(text), preferred="fraud")
        assert str(found) == expected


def test_it_is_never_guessed_which_of_several_names_is_meant() -> None:
    uri = model_uri_from_text(f"models:/m-{ID}")
    with pytest.raises(RequestError, match="registered as other, third"):
        Registered("other/1", "third/1").version_of(uri, preferred="fraud")
    with pytest.raises(RequestError, match="is not registered") as raised:
        Registered().version_of(uri, preferred="fraud")
    assert f'mlflow.register_model("models:/m-{ID}", "fraud")' in raised.value.hint
