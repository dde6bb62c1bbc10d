"""RunSpec -> run folder: the unit of work. A killed run goes on where it was; a finished one is never repeated."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veilset.core.errors import RunError
from veilset.core.io import lock, read_json, write_json

if TYPE_CHECKING:
    from veilset.methods.base import Synthesizer
    from veilset.privacy.plan import Plan

RECEIPTS = ("receipt.json", "NON-PRIVATE.json")


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """Everything that decides a fit.

    Attributes:
        method: a name in `veilset.methods()`.
        data: a built-in name or a path.
        epsilon, delta, allow_large_delta: the budget.
        seed: None for release mode.
        params: method parameters.
        recipe: the method's named set of parameters that `params` override, or None.
        device: where torch computes; may change when a run goes on.
    """

    method: str
    data: str
    epsilon: float
    delta: float = 1e-5
    allow_large_delta: bool = False
    seed: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    recipe: str | None = None
    device: str = "cpu"

    def plan(self) -> Plan:
        """The priced plan; reads the declaration, no record."""
        return self._prepare()[2]

    def _prepare(self) -> tuple[Any, Synthesizer, Plan, Any]:
        from veilset.data.load import load
        from veilset.methods.catalogue import make
        from veilset.privacy.spec import Privacy

        privacy = Privacy(self.epsilon, self.delta, self.allow_large_delta)
        model = make(self.method, recipe=self.recipe, **self.params)
        data = load(self.data)
        return data, model, model.plan(data.info, privacy), privacy


def execute(spec: RunSpec, out: str | Path, *, resume: bool = False) -> Synthesizer:
    """Fit into a new run folder, or go on with an interrupted one.

    Folder: model.safetensors, model.json, ledger.jsonl, receipt.json, SHA256SUMS, and private/ (mode 0700: the
    arguments, paid answers, an HMAC of the data). All checks come before the folder is made.

    Args:
        spec: what to run.
        out: run folder.
        resume: go on with an interrupted run of the same arguments; a finished one is opened.

    Raises:
        RunError: the folder exists (without `resume`), is in use, or was started with other arguments.
    """
    from veilset.methods.catalogue import open_model

    out = Path(out)
    if out.exists() and not resume:
        raise RunError(f"{out} exists; choose another folder, or go on with an interrupted run by --resume")
    if resume and not (out / "private" / "run.json").exists():
        raise RunError(f"{out}: there is no interrupted run here; drop --resume to start one")
    data, model, _, privacy = spec._prepare()
    data.train.check()
    try:
        (out / "private").mkdir(parents=True, exist_ok=resume, mode=0o700)
    except OSError as e:
        raise RunError(f"cannot make {out}: {e.strerror}; choose another folder") from e
    with lock(out / "private" / "lock", str(out)):
        if resume:
            _same(spec, read_json(out / "private" / "run.json"))
        else:
            _start(out, _identity(spec))
        if any((out / name).exists() for name in RECEIPTS):
            return open_model(out)
        model.fit(data.train, privacy, seed=spec.seed, folder=out, device=spec.device)
        model.write(out)
    return model


def _start(out: Path, identity: dict[str, Any]) -> None:
    """Write the arguments; a folder without them could be neither started nor gone on with, so none is left."""
    try:
        write_json(out / "private" / "run.json", identity, mode=0o600)
    except RunError:
        shutil.rmtree(out, ignore_errors=True)
        raise


def _identity(spec: RunSpec) -> dict[str, Any]:
    facts = asdict(spec)
    facts.pop("device")
    facts["epsilon"] = str(float(spec.epsilon))  # infinity is not JSON
    facts["data"] = str(Path(spec.data).resolve()) if Path(spec.data).exists() else spec.data
    facts["params"] = {k: str(v) for k, v in sorted(spec.params.items())}
    return facts


def _same(spec: RunSpec, stored: dict[str, Any]) -> None:
    for key, value in _identity(spec).items():
        if stored.get(key) != value:
            raise RunError(
                f"{key} = {value!r}, but this run was started with {stored.get(key)!r}; "
                "an interrupted run goes on with its own arguments only, or start a new one in a new folder"
            )
