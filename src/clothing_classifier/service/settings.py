"""What a service may be asked for, and by whom."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Settings:
    """A service's limits. A request over one of them has a status and a `type` of its own, see `problems`.

    Attributes:
        bytes: the size of one photo's file.
        pixels: width × height of one photo.
        files: photos in one request.
        request_bytes: the size of one request's body.
        readers: requests whose bodies are read at once. More than are computed: bodies may be slow in coming.
        requests: requests that are computed at once.
        photos: photos that are decoded or computed at once, before further requests are turned away.
        held_bytes: bodies that are held in memory at once, all together. `clothing serve` takes less where the machine
            has little.
        seconds: the time that decoding one photo may take.
        request_seconds: the time that a request's photos may take, once its body is there.
        decoders: processes that decode; by default one for each core, at most 8.
        hosts: names by which the service may be called (the ``Host`` header, without the port), beside any IP address;
            any name if empty.
        key: what clients of the API must show; nothing if ``None``.
        access_log: whether each request is logged, once it is answered.

    Raises:
        ValueError: a limit is not above 0, or the key is not one that a header can hold.
    """

    bytes: int = 20 * 2**20
    pixels: int = 50_000_000
    files: int = 64
    request_bytes: int = 128 * 2**20
    readers: int = 512
    requests: int = 64
    photos: int = 512
    held_bytes: int = 512 * 2**20
    seconds: float = 10
    request_seconds: float = 60
    decoders: int | None = None
    hosts: frozenset[str] = frozenset()
    key: str | None = None
    access_log: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not isinstance(value, bool) and not value > 0:
                raise ValueError(f"{field.name} must be above 0, not {value}")
        if self.key is not None and not (
            self.key.isascii() and self.key.isprintable() and self.key.strip() == self.key != ""
        ):
            raise ValueError("the key must be printable ASCII text, without spaces around it")
