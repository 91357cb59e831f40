"""Parts of files on the Hub."""

from __future__ import annotations

from typing import Any

from .._C import InputError


def read_range(url: str, begin: int, count: int) -> bytes:
    """Bytes begin, ..., begin + count - 1. Stops after them where the server sends the
    whole file."""
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    if count == 0:
        return b""
    headers = build_hf_headers()
    headers["Range"] = f"bytes={begin}-{begin + count - 1}"
    headers["Accept-Encoding"] = "identity"
    data = bytearray()
    with _stream(url, headers) as response:
        hf_raise_for_status(response)
        skipped = begin if response.status_code == 200 else 0
        for part in _parts(response):
            data += part
            if len(data) >= skipped + count:
                break
    found = bytes(data[skipped : skipped + count])
    if len(found) < count:
        raise InputError(
            f"{url}: expected {count} bytes from byte {begin}, got {len(found)}; try "
            "again later"
        )
    return found


def _stream(url: str, headers: dict[str, str]) -> Any:
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    session: Any = get_session()
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    if callable(session.stream):  # httpx, since huggingface_hub 1.0
        return session.stream("GET", url, headers=headers, timeout=timeout)
    return session.get(url, headers=headers, timeout=timeout, stream=True)


def _parts(response: Any) -> Any:
    if hasattr(response, "iter_bytes"):  # httpx
        return response.iter_bytes()
    return response.iter_content(1 << 14)
