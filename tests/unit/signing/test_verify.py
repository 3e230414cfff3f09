"""Whatever is changed in a signed folder is found; the folder as it was signed is accepted."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from pipeline.errors import RefusedError, SettingsError
from pipeline.manifest import MANIFEST_NAME, SIGNATURE_NAME, differences, manifest_from_bytes
from pipeline.signing import verify_folder
from pipeline.signing.sign import key_signer


def refusal(folder: Path, key: Path) -> str:
    with pytest.raises(RefusedError) as caught:
        verify_folder(folder, key)
    assert caught.value.hint
    return caught.value.message


def test_what_was_signed_is_accepted_wherever_it_is_copied(
    signed: Path, keys: Any, tmp_path: Path
) -> None:
    assert verify_folder(signed, keys.public).version == 7
    copy = shutil.copytree(signed, tmp_path / "downloaded")
    assert verify_folder(copy, keys.public).model == "fraud"


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()])
def test_larger_keys_sign_too(curve: ec.EllipticCurve, new_key_pair: Any, new_folder: Any) -> None:
    pair = new_key_pair(curve=curve)
    folder, manifest = new_folder()
    key_signer(pair.private).sign(folder, manifest)
    assert verify_folder(folder, pair.public) == manifest


@pytest.mark.parametrize("file", ["model.onnx", "data/weights.bin", MANIFEST_NAME])
def test_every_flipped_bit_of_a_file_is_found_and_the_file_named(
    file: str, signed: Path, keys: Any
) -> None:
    path = signed / file
    good = path.read_bytes()
    for position in range(0, len(good), 1 + len(good) // 40):
        path.write_bytes(flipped(good, position, 1 << position % 8))
        assert file in refusal(signed, keys.public)
    path.write_bytes(good)
    verify_folder(signed, keys.public)


def test_a_changed_byte_anywhere_in_the_signature_is_found(signed: Path, keys: Any) -> None:
    path = signed / SIGNATURE_NAME
    good = path.read_bytes()
    for position in range(0, len(good), 5):
        bad = flipped(good, position, 1 << position % 8)
        path.write_bytes(bad)
        if decoded(bad) == decoded(good):
            continue  # it says the same
        refusal(signed, keys.public)


def test_a_cut_signature_is_found(signed: Path, keys: Any) -> None:
    path = signed / SIGNATURE_NAME
    good = path.read_bytes()
    for length in [*range(0, len(good), 50), len(good) - 1]:
        path.write_bytes(good[:length])
        refusal(signed, keys.public)


@pytest.mark.parametrize("nonsense", [b"null", b"[]", b"{}", b"\xff", b"[" * 100_000, b'"a"'])
def test_a_signature_that_is_nonsense_is_refused(nonsense: bytes, signed: Path, keys: Any) -> None:
    (signed / SIGNATURE_NAME).write_bytes(nonsense)
    refusal(signed, keys.public)


@pytest.mark.parametrize(
    "file", ["added.bin", ".hidden", ".gitignore", ".git/config", ".gitattributes", "data/x"]
)
def test_a_file_too_many_is_found(file: str, signed: Path, keys: Any) -> None:
    (signed / file).parent.mkdir(exist_ok=True)
    (signed / file).write_bytes(b"")
    assert file in refusal(signed, keys.public)


@pytest.mark.parametrize("file", ["model.onnx", "data/weights.bin", "empty", MANIFEST_NAME])
def test_a_file_too_few_is_found(file: str, signed: Path, keys: Any) -> None:
    (signed / file).unlink()
    assert file in refusal(signed, keys.public)


def test_a_renamed_file_is_found(signed: Path, keys: Any) -> None:
    (signed / "empty").rename(signed / "nothing")
    assert "nothing" in refusal(signed, keys.public)


def test_a_link_in_the_place_of_a_file_is_found(signed: Path, keys: Any, tmp_path: Path) -> None:
    elsewhere = shutil.move(signed / "model.onnx", tmp_path / "model.onnx")
    (signed / "model.onnx").symlink_to(elsewhere)
    assert "symlink" in refusal(signed, keys.public)


def test_an_unsigned_folder_is_refused_as_unsigned(signed: Path, keys: Any) -> None:
    (signed / SIGNATURE_NAME).unlink()
    assert "is not signed" in refusal(signed, keys.public)


def test_a_folder_in_the_place_of_the_signature_hides_nothing(signed: Path, keys: Any) -> None:
    (signed / SIGNATURE_NAME).unlink()
    (signed / SIGNATURE_NAME).mkdir()
    (signed / SIGNATURE_NAME / "evil.so").touch()
    assert "is not signed" in refusal(signed, keys.public)


def test_another_key_is_told_as_such(signed: Path, new_key_pair: Any) -> None:
    assert "made with another key" in refusal(signed, new_key_pair().public)


def test_another_key_under_the_name_of_the_right_one_is_refused(
    signed: Path, new_folder: Any, keys: Any, new_key_pair: Any
) -> None:
    hint = bundle(signed)["verificationMaterial"]["publicKey"]["hint"]
    manifest = manifest_from_bytes((signed / MANIFEST_NAME).read_bytes())
    key_signer(new_key_pair().private).sign(signed, manifest)
    forged = bundle(signed)
    forged["verificationMaterial"]["publicKey"]["hint"] = hint
    (signed / SIGNATURE_NAME).write_text(json.dumps(forged))
    assert "altered, or made with another key" in refusal(signed, keys.public)


@pytest.mark.parametrize("key", [{}, {"hint": None}, {"hint": ""}])
def test_a_signature_that_names_no_key_is_refused_in_silence(
    key: dict[str, Any], signed: Path, keys: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    nameless = bundle(signed)
    nameless["verificationMaterial"]["publicKey"] = key
    (signed / SIGNATURE_NAME).write_text(json.dumps(nameless))
    refusal(signed, keys.public)
    assert capsys.readouterr().out == ""


def test_the_signature_of_another_version_does_not_hold(
    signed: Path, new_folder: Any, keys: Any
) -> None:
    other, manifest = new_folder(version=8)
    key_signer(keys.private).sign(other, manifest)
    shutil.copy(other / SIGNATURE_NAME, signed / SIGNATURE_NAME)
    assert "is not what was signed" in refusal(signed, keys.public)


def test_a_folder_that_was_signed_with_files_left_out_is_refused(signed: Path, keys: Any) -> None:
    from model_signing import hashing, signing

    (signed / "model.onnx").write_bytes(b"anything")
    left_out = hashing.Config()  # type: ignore[no-untyped-call]
    left_out.set_ignored_paths(paths=[SIGNATURE_NAME, "model.onnx"])
    config = signing.Config().use_elliptic_key_signer(  # type: ignore[no-untyped-call]
        private_key=keys.private
    )
    config.set_hashing_config(left_out).sign(signed, signed / SIGNATURE_NAME)
    assert "model.onnx" in refusal(signed, keys.public)


def test_a_file_that_the_signer_wished_to_be_ignored_is_a_file_too_many(
    signed: Path, keys: Any
) -> None:
    from model_signing import hashing, signing

    left_out = hashing.Config()  # type: ignore[no-untyped-call]
    left_out.set_ignored_paths(paths=[SIGNATURE_NAME, "evil.so"])
    config = signing.Config().use_elliptic_key_signer(  # type: ignore[no-untyped-call]
        private_key=keys.private
    )
    config.set_hashing_config(left_out).sign(signed, signed / SIGNATURE_NAME)
    verify_folder(signed, keys.public)
    (signed / "evil.so").touch()
    assert "evil.so" in refusal(signed, keys.public)


def test_a_folder_that_was_signed_but_is_not_its_manifest_is_refused(
    signed: Path, keys: Any
) -> None:
    from model_signing import hashing, signing

    (signed / "model.onnx").write_bytes(b"anything")
    plain = hashing.Config()  # type: ignore[no-untyped-call]
    plain.set_ignored_paths(paths=[SIGNATURE_NAME])
    config = signing.Config().use_elliptic_key_signer(  # type: ignore[no-untyped-call]
        private_key=keys.private
    )
    config.set_hashing_config(plain).sign(signed, signed / SIGNATURE_NAME)
    assert "does not hold what its manifest lists: model.onnx" in refusal(signed, keys.public)


def test_the_signature_is_no_difference_to_the_manifest(signed: Path) -> None:
    manifest = manifest_from_bytes((signed / MANIFEST_NAME).read_bytes())
    assert differences(signed, manifest) == []
    (signed / "data" / SIGNATURE_NAME).touch()
    assert len(differences(signed, manifest)) == 1


def test_a_key_that_cannot_verify_is_a_setting(signed: Path, keys: Any, tmp_path: Path) -> None:
    for key in (tmp_path / "absent.pub", signed / MANIFEST_NAME, keys.private):
        with pytest.raises(SettingsError, match=key.name):
            verify_folder(signed, key)


def flipped(data: bytes, position: int, bits: int) -> bytes:
    return data[:position] + bytes([data[position] ^ bits]) + data[position + 1 :]


def bundle(folder: Path) -> Any:
    return json.loads((folder / SIGNATURE_NAME).read_bytes())


def decoded(data: bytes) -> Any:
    """What a signature says, without the bits after the end of its base64 texts."""
    try:
        document = json.loads(data)
        envelope = document["dsseEnvelope"]
        for holder, name in ((envelope, "payload"), (envelope["signatures"][0], "sig")):
            holder[name] = base64.b64decode(holder[name], validate=True)
    except (ValueError, KeyError):
        return data
    else:
        return document
