"""What all methods share. Each plans (`_plan`) and learns (`_fit`); a synthesizer then draws images (`_sample`), a
teacher tells the class of images that it is shown (`_predict`). The rest is here.
"""

from __future__ import annotations

import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, final

import torch

from veilset.core.errors import ConfigError, ModeError, RunError, VeilsetError, suggest
from veilset.core.io import new_folder, no_links, read_capped, read_json, sha256_file, write_bytes, write_json
from veilset.core.listing import MOST_SUMS, SUMS
from veilset.core.memory import keep_pages
from veilset.core.room import Room
from veilset.core.types import Images, PublicInfo
from veilset.methods.parameters import Configured
from veilset.methods.returned import handed, tensors
from veilset.privacy.account import Account, Payment
from veilset.privacy.gate import Gate
from veilset.privacy.ledger import MOST_LEDGER
from veilset.privacy.plan import Plan
from veilset.privacy.private import PrivateImages
from veilset.privacy.receipt import LEDGER, Receipt, read_receipt, write_release
from veilset.privacy.run.process_group import Team
from veilset.privacy.session import Session
from veilset.privacy.spec import Privacy

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMAT = "veilset-model/1"
BATCH = 1000  # images drawn at a time
A_LABEL = 150  # bytes that a label takes while all are put in order
MOST_MODEL = 1 << 30  # bytes of a model's weights that are read
MOST_MADE = 1 << 25  # numbers that any model may make while it draws; one with more weights, four times as many
State = dict[str, torch.Tensor]
M = TypeVar("M", bound="Method")


class Method(Configured, ABC):
    """Base of synthesizers and teachers. Public methods are final; the others are what a method writes.

    Attributes:
        public_data: whether it starts from data that is declared public, which its parameter `public` names: "needed",
            "optional" or "ignored".
        receipt_: the claim, after `fit`.
    """

    public_data: ClassVar[Literal["needed", "optional", "ignored"]] = "ignored"

    def __init__(self, **params: Any):
        if not isinstance(getattr(self, "name", None), str):
            raise ConfigError(f'{type(self).__name__}: has no name; give the class a line such as name = "my-method"')
        if "public" in params and self.public_data == "ignored":
            raise ConfigError(
                f"public = {params['public']!r}: {self.name} uses no public data; leave it out, or take a method that "
                "does (`veilset methods`)"
            )
        super().__init__(**params)
        self._restored = ""  # where its weights were read from
        self.device = "cpu"
        self.receipt_: Receipt | None = None
        self.info_: PublicInfo | None = None
        self._state: State | None = None
        self._ledger = b""

    # ------------------------------------------------------------------ what a method writes

    @abstractmethod
    def _plan(self, info: PublicInfo, privacy: Privacy) -> Plan:
        """The releases, from declared facts and the budget only, with an estimate of seconds and memory."""

    @abstractmethod
    def _fit(self, gate: Gate, info: PublicInfo, plan: Plan) -> State:
        """Ask the gate what was planned, learn from the noisy answers, and return every tensor the model keeps.

        torch's generator is seeded around this call, so plain torch randomness is fine; it protects nothing.
        """

    def _prepare(self, info: PublicInfo) -> None:
        """Make what public data alone decides, such as a model that learns from it, before records are opened."""

    def _notes(self, state: State) -> tuple[str, ...]:
        """What the noisy answers decided, a line each, in words for the user; most methods have nothing to say."""
        return ()

    # ------------------------------------------------------------------ what a user calls

    @final
    def unpriced(self, info: PublicInfo, privacy: Privacy) -> Plan:
        """The plan without its price, which takes time: names, seconds and memory are there, noise is not."""
        return handed(self._plan(info, privacy), Plan, f"{type(self).__name__}._plan")

    @final
    def plan(self, info: PublicInfo, privacy: Privacy) -> Plan:
        """Every release before any access, with its noise and its share of the budget."""
        return self.unpriced(info, privacy).price(privacy, info)

    @final
    def fit(
        self: M,
        data: PrivateImages,
        privacy: Privacy,
        *,
        seed: int | None = None,
        folder: Path | None = None,
        device: str = "cpu",
        account: Account | None = None,
    ) -> M:
        """Learn from private images under a budget.

        Args:
            data: `veilset.load(...).train`.
            privacy: the budget.
            seed: None for release mode, where protecting bits come from the operating system; an integer for research
                mode, which repeats bit for bit and is stamped NOT A RELEASE.
            folder: run folder for ledger and paid answers, so that an interrupted run goes on; see `veilset.runs`.
            device: where torch computes.
            account: the set's privacy account, which pays for the whole plan before anything is asked.

        Returns:
            The model itself, with `receipt_` set.

        Raises:
            ModeError: fitted already, or an account for a run that gives no privacy.
            RunError: without a seed, after a self-test that failed.
            DataError, ConfigError, BudgetExceeded: as they say.
        """
        if self._state is not None:
            raise ModeError(f"this {self.name} model is fitted already; make a new one, since every fit spends budget")
        if not isinstance(data, PrivateImages):
            raise ConfigError(f"data is a {type(data).__name__}: must be private images; use veilset.load(...).train")
        data.check()
        priced = self.plan(data.info, privacy)
        payment = Payment(account, f"fit {self.name}") if account else None
        return self.fit_planned(self.session(data, priced, seed=seed, folder=folder, device=device, payment=payment))

    @final
    def session(self, data: PrivateImages, plan: Plan, **how: Any) -> Session:
        """A session that fits this method; arguments and errors as `Session` has them."""
        self._prepare(data.info)
        return Session(data, plan, what=self.name, config=self._told(), **how)

    def _told(self) -> dict[str, Any]:
        """The parameters as they are written: of a public set its name alone, since its place is its owner's matter."""
        told = asdict(self.config)
        if self.public_data != "ignored" and told["public"]:
            told["public"] = Path(told["public"]).name
        return told

    @final
    def fit_planned(self: M, session: Session) -> M:
        """`fit` in a session, by a plan that was priced before."""
        with session:
            self.learn(session)
        self.settle(session)
        return self

    @final
    def learn(self, session: Session, plan: Plan | None = None) -> None:
        """Fit in a session, of which more may be asked before it is closed.

        Args:
            session: open. Initial weights and the like, which protect nothing, follow from its seed, if it has one.
            plan: this model's, if the session's holds more.
        """
        keep_pages()
        self.device, gate, seed = session.device, session.gate, session.seed
        with _public_randomness(Team().share(lambda: _public_seed(session.folder)) if seed is None else seed):
            state = tensors(self._fit(gate, gate.info, plan or session.plan), f"{type(self).__name__}._fit")
        self._state = {k: v.detach().cpu().contiguous() for k, v in state.items()}
        self.info_ = gate.info

    @final
    def settle(self, session: Session) -> None:
        """Take the claim of the session, and close it unless that was done."""
        self.receipt_, self._ledger = session.close(), session.ledger

    @final
    def notes(self) -> tuple[str, ...]:
        """What a fitted model decided by its noisy answers, a line each, as the form of what it draws.

        Raises:
            ModeError: not fitted.
        """
        return self._notes(self.fitted()[0])

    @final
    def save(self, folder: str | Path) -> Path:
        """Write a new folder with the model (safetensors + JSON), its ledger and its receipt."""
        with new_folder(folder) as tmp:
            self.write(tmp)
        return Path(folder)

    @final
    def write(self, folder: Path) -> None:
        """Write the files of `save` into an existing folder."""
        from safetensors.torch import save

        state, info = self.fitted()
        assert self.receipt_ is not None
        facts = {"format": FORMAT, "method": self.name, "config": self._told(), "info": info.to_json()}
        write_bytes(folder / "model.safetensors", save(state))
        write_json(folder / "model.json", facts)
        self.receipt_ = write_release(folder, self.receipt_, self._ledger)

    def _check_changeable(self) -> None:
        if self._state is not None:
            raise ModeError(
                f"set_params: this {self.name} model is fitted already, by the parameters that it has; make a new one, "
                "or change an unfitted copy, such as sklearn.base.clone(model)"
            )

    @final
    def fitted(self) -> tuple[State, PublicInfo]:
        """(Every tensor that the model keeps, declared facts).

        Raises:
            ModeError: not fitted.
        """
        if self._state is None or self.info_ is None:
            raise ModeError(f"this {self.name} model is not fitted; call fit(data.train, privacy) first")
        return self._state, self.info_

    @property
    def ledger(self) -> bytes:
        """The ledger of a fitted model, as its file holds it."""
        self.fitted()
        return self._ledger

    def __repr__(self) -> str:
        state = "fitted" if self._state is not None else "not fitted"
        return f"{type(self).__name__}({self.config}, {state})"


class Synthesizer(Method):
    """Base of all methods that draw images: overrides `_plan`, `_fit` and `_sample`.

    Examples:
        >>> isinstance(model, vs.Synthesizer)
        True
        >>> model.sample(20, classes=["3", "8"]).y.unique()
        tensor([3, 8])
    """

    @abstractmethod
    def _sample(self, state: State, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        """Draw one image a label: labels int64 [n] -> float [n, C, H, W] in [0, 1]."""

    def attack_features(self, folder: Path, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        """What anyone who holds the fitted model can measure of candidates; larger means more like a member.

        Args:
            folder: of the run, for what only its owner holds, such as a critic.
            x: images [n, C, H, W] in [0, 1].
            y: labels [n].

        Returns:
            Name -> [n]; nothing where the released images are all there is. Random draws follow torch's generator,
            which attacks seed alike for every model.
        """
        return {}

    @final
    def sample(
        self,
        n: int,
        *,
        classes: Sequence[str] | None = None,
        mix: Mapping[str, float] | None = None,
        seed: int | None = None,
    ) -> Images:
        """Draw n labelled images; costs no privacy, however many.

        Args:
            n: how many.
            classes: class names to draw, in equal shares; default all.
            mix: class name -> weight, instead of equal shares. Declare it yourself: true class shares are private.
            seed: to repeat the draw.

        Returns:
            Images of n rows, labels interleaved.

        Raises:
            ConfigError: n or a class out of range, or images that this machine's memory does not hold.
        """
        state, info = self.fitted()
        if isinstance(n, int):
            _check_room(n, n * (info.pixels + A_LABEL))
        labels = _labels(n, info.classes, classes, mix)
        out = torch.empty(n, *info.shape, dtype=torch.uint8)
        with _public_randomness(seed), torch.no_grad():
            for i in range(0, n, BATCH):
                x = self._drawn_by(state, info, labels[i : i + BATCH])
                out[i : i + BATCH] = (x.nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8)
        stamp = self.receipt_.facts["stamp"] if self.receipt_ else ""  # none yet: a trial of a search
        return Images(out, labels, info.classes, label=stamp or "SYNTHETIC")

    def _drawn_by(self, state: State, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        """`_sample`, where weights that a stranger wrote may not be those that the method looks for."""
        if not self._restored:
            x = handed(self._sample(state, info, labels), torch.Tensor, f"{type(self).__name__}._sample")
            if tuple(x.shape) != (len(labels), *info.shape) or not x.is_floating_point():
                raise ConfigError(
                    f"{type(self).__name__}._sample returned {x.dtype} {list(x.shape)}: must return floats "
                    f"{[len(labels), *info.shape]} in [0, 1], one a label"
                )
            return x.cpu()
        stored = sum(t.numel() for t in state.values())
        try:
            with Room(max(MOST_MADE, 4 * stored, 4 * BATCH * info.pixels)):
                return self._sample(state, info, labels).cpu()
        except (LookupError, RuntimeError, TypeError, ValueError) as e:
            if isinstance(e, VeilsetError):
                raise
            raise RunError(
                f"{self._restored}: its weights are not those of {self.name} with these parameters and declared facts "
                f"({type(e).__name__}: {e}); get another copy, or fit again"
            ) from e

    @final
    def write_samples(self, images: Images, folder: str | Path, format: str = "folder") -> Path:
        """Write a new release folder: images with labels, ledger, and a receipt that covers every file."""
        self.fitted()
        assert self.receipt_ is not None
        with new_folder(folder) as tmp:
            images.write(tmp, format)
            write_release(tmp, self.receipt_, self._ledger)
        return Path(folder)


class Teacher(Method):
    """Base of all classifiers learned under a budget: overrides `_plan`, `_fit` and `_predict`.

    Examples:
        >>> isinstance(teacher, vs.Teacher)  # the one of `veilset.make_teacher`
        True
        >>> teacher.predict_proba(data.public_test().x[:5]).shape
        torch.Size([5, 10])
    """

    @abstractmethod
    def _predict(self, state: State, info: PublicInfo, x: torch.Tensor) -> torch.Tensor:
        """Scores of float images [n, C, H, W] in [0, 1]: logits [n, K]."""

    @final
    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """The most probable class of each image; costs no privacy, however many.

        Args:
            x: uint8 [n, C, H, W], such as `images.x`.

        Returns:
            Labels int64 [n], as indices into the declared classes.

        Raises:
            ModeError: not fitted. ConfigError: x is not uint8, or of another shape than declared.
        """
        return self.predict_proba(x).argmax(1)

    @final
    def predict_proba(self, x: torch.Tensor) -> torch.Tensor:
        """The probability of each class for each image; arguments and errors are those of `predict`.

        Returns:
            float32 [n, K], the classes in their declared order; each row adds up to 1.
        """
        state, info = self.fitted()
        if not isinstance(x, torch.Tensor) or x.dtype != torch.uint8 or tuple(x.shape[1:]) != info.shape:
            seen = f"{x.dtype} {list(x.shape)}" if isinstance(x, torch.Tensor) else f"a {type(x).__name__}"
            raise ConfigError(
                f"x is {seen}: must be uint8 images of the declared shape [n, {', '.join(map(str, info.shape))}], "
                "such as images.x"
            )
        with torch.no_grad():
            scores = [self._predict(state, info, part.float() / 255) for part in x.split(BATCH) if len(part)]
        return torch.cat([torch.zeros(0, len(info.classes)), *scores]).softmax(1)


def restore(cls: type[M], folder: Path, facts: dict[str, Any]) -> M:
    """Rebuild a fitted model from a folder whose model.json was read.

    Raises:
        RunError: the weights are cut short, or are not those that the receipt covers.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    model = cls(**cls.modern(facts["config"], tell=False))
    path = folder / "model.safetensors"
    try:
        model._state = load(read_capped(path, MOST_MODEL))
        covered = f"{sha256_file(path)}  {path.name}\n".encode() in read_capped(folder / SUMS, MOST_SUMS)
        model._ledger = read_capped(folder / LEDGER, MOST_LEDGER)
    except (SafetensorError, OSError, ValueError) as e:
        raise RunError(f"{path}: not a whole safetensors file with its receipt ({e}); fit again or copy it anew") from e
    if not covered:
        raise RunError(f"{path}: not the model that {folder / SUMS} covers; run `veilset verify {folder}`")
    try:
        model.info_ = PublicInfo.from_json(facts["info"])
    except (ArithmeticError, LookupError, TypeError, ValueError) as e:
        raise RunError(f"{folder / 'model.json'}: its declared facts are not whole ({e}); copy the folder anew") from e
    model.receipt_ = read_receipt(folder)
    model._restored = str(folder)
    return model


def model_facts(folder: Path) -> dict[str, Any]:
    """model.json of a folder.

    Raises:
        RunError: absent, or written by something else.
    """
    if folder.is_dir():
        no_links(folder)
    facts = read_json(folder / "model.json")
    kinds = {"format": str, "method": str, "config": dict, "info": dict}
    if (
        not isinstance(facts, dict)
        or facts.get("format") != FORMAT
        or any(not isinstance(facts.get(key), kind) for key, kind in kinds.items())
    ):
        raise RunError(f"{folder / 'model.json'}: not a {FORMAT} file; veilset opens only models that veilset wrote")
    return facts


def _public_seed(folder: Path | None) -> int:
    """The seed of a release run's public randomness, kept because its paid answers belong to these features."""
    fresh = secrets.randbits(63)
    if folder is None:
        return fresh
    path = folder / "private" / "public.json"
    if not path.exists():
        write_json(path, {"seed": fresh}, mode=0o600)
    return int(read_json(path)["seed"])


@contextmanager
def _public_randomness(seed: int | None) -> Iterator[None]:
    """torch's generator for initial weights, random features and latent codes; put back as it was afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(secrets.randbits(63) if seed is None else seed)
        yield


def _check_room(n: int, size: int) -> None:
    """Refuse images of so many bytes before they are begun if they would take more than half of the memory."""
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    if size > most:
        sizes = f"{size / 1e9:,.1f} GB of memory, at most {most / 1e9:,.1f} GB may be used"
        raise ConfigError(f"n = {n}: so many images take {sizes}; draw them in several folders")


def _labels(
    n: int, names: tuple[str, ...], classes: Sequence[str] | None, mix: Mapping[str, float] | None
) -> torch.Tensor:
    """n labels in the asked shares (largest remainder), interleaved."""
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ConfigError(f"n = {n!r}: must be a whole number of at least 1")
    if classes is not None and mix is not None:
        raise ConfigError("classes and mix: give one of them, not both")
    weights = dict(mix) if mix is not None else dict.fromkeys(classes if classes is not None else names, 1.0)
    for name, w in weights.items():
        if name not in names:
            raise ConfigError(f"class {name!r} is not declared.{suggest(name, names)} Classes: {', '.join(names)}")
        if not 0 <= w < float("inf"):
            raise ConfigError(f"mix {name} = {w!r}: must be a finite weight of at least 0")
    total = sum(weights.values())
    if total <= 0:
        raise ConfigError("mix: at least one weight must be above 0")
    exact = {k: n * w / total for k, w in weights.items()}
    count = {k: int(v) for k, v in exact.items()}
    for k in sorted(exact, key=lambda k: count[k] - exact[k])[: n - sum(count.values())]:
        count[k] += 1
    # Interleave: the j-th image of a class with c images stands at (j + 1/2) / c.
    place = sorted(((j + 0.5) / c, names.index(k)) for k, c in count.items() for j in range(c))
    return torch.tensor([k for _, k in place], dtype=torch.int64)
