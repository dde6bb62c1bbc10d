"""Who is asked about: members of a run, and real outsiders of which we say where they come from."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veilset.core.errors import ConfigError, DataError, ModeError, RunError
from veilset.core.types import Images, PublicInfo

if TYPE_CHECKING:
    import torch

    from veilset.methods.base import Synthesizer
    from veilset.privacy.private import PrivateImages

PURPOSE = "membership attack"
NEAR = 0.05  # root mean square difference, in units of the pixel range, below which two images are near duplicates
FEWEST = 100  # candidates of each kind below which nothing is said


@dataclass(frozen=True)
class Pool:
    """The candidates, half of them members of the attacked run, and the members that are not asked about.

    Attributes:
        candidates: 2 k images: k members, then k outsiders.
        rest: the other members; every shadow model is trained on them too.
        origin: where the outsiders come from, in words.
        near: outsiders that nearly equal a member.
        dropped: outsiders that were left out because they equal a member.
    """

    candidates: Images
    rest: Images
    origin: str
    near: int
    dropped: int

    @property
    def each(self) -> int:
        """k, the number of members, and of outsiders."""
        return len(self.candidates) // 2


def make_pool(
    members: Images, outsiders: Images, origin: str, *, targets: int, seed: int, drop_duplicates: bool = False
) -> Pool:
    """Choose candidates by lot, as many members as outsiders.

    Args:
        members: all records that the run was fitted on.
        outsiders: records that it was not fitted on, of the same distribution.
        origin: where those come from, in words.
        targets: at most this many of each.
        seed: of the lot.
        drop_duplicates: leave out outsiders that equal a member, instead of refusing.

    Raises:
        DataError: classes or shapes differ, an outsider equals a member, or there are too few of a kind.
    """
    import torch

    _same_kind(members, outsiders)
    double = duplicates(members, outsiders)
    found = int(double.sum())
    if found and not drop_duplicates:
        raise DataError(
            f"outsiders: {found} of {len(outsiders)} ({origin}) equal a member pixel by pixel, so they are no "
            "non-members; remove them, name other outsiders, or leave them out by --drop-duplicates"
        )
    outsiders = outsiders[~double]
    k = min(targets, len(members), len(outsiders))
    if k < FEWEST:
        raise DataError(
            f"candidates = {k} of each kind (members {len(members)}, outsiders {len(outsiders)}, targets {targets}): "
            f"must be at least {FEWEST} to say anything; hold out more records"
        )
    lot = torch.Generator().manual_seed(seed)
    order, other = (torch.randperm(len(s), generator=lot) for s in (members, outsiders))
    asked, strangers = members[order[:k]], outsiders[other[:k]]
    pair = replace(asked, x=torch.cat([asked.x, strangers.x]), y=torch.cat([asked.y, strangers.y]))
    return Pool(pair, members[order[k:]], origin, near_duplicates(members, strangers), found)


def _same_kind(members: Images, outsiders: Images) -> None:
    a, b = (members.classes, *members.x.shape[1:]), (outsiders.classes, *outsiders.x.shape[1:])
    if a != b:
        raise DataError(
            f"outsiders have classes {list(b[0])} and shape {list(b[1:])}, members {list(a[0])} and {list(a[1:])}: "
            "must be equal; name outsiders of the same kind"
        )


def duplicates(members: Images, outsiders: Images) -> torch.Tensor:
    """Bool [n]: the outsiders that equal a member pixel by pixel, whatever their labels."""
    import torch

    known = {row.tobytes() for row in members.x.numpy()}
    return torch.tensor([row.tobytes() in known for row in outsiders.x.numpy()], dtype=torch.bool)


def near_duplicates(members: Images, outsiders: Images) -> int:
    """How many outsiders differ from some member by less than NEAR."""
    import torch

    from veilset.audit.membership.features import squared_distances

    a, b = (s.x.flatten(1).float() / 255 for s in (outsiders, members))
    limit, close = NEAR**2 * a.shape[1], torch.zeros(len(a), dtype=torch.bool)
    for part in b.split(4096):
        for i in range(0, len(a), 4096):
            close[i : i + 4096] |= squared_distances(a[i : i + 4096], part).min(1).values < limit
    return int(close.sum())


# ---------------------------------------------------------------------- a run folder


@dataclass(frozen=True)
class Run:
    """What a run folder tells an attacker who is also its owner.

    Attributes:
        folder: the run folder.
        model: the fitted model.
        data: the name or path of the set it was fitted on.
        seed: of its research mode.
    """

    folder: Path
    model: Synthesizer
    data: str
    seed: int


def open_run(folder: Path) -> Run:
    """Open a run folder to attack it.

    Raises:
        RunError: the folder lacks the model or the arguments of the run.
        ModeError: the run was made in release mode.
        DataError: units of several images.
    """
    from veilset.core.io import read_json
    from veilset.methods.catalogue import open_model

    if not (folder / "model.json").exists():
        raise RunError(
            f"{folder}: there is no model here; an attack takes a run folder that `veilset fit --seed S` wrote "
            "(of a sampled folder it is not known who was a member)"
        )
    model = open_model(folder)  # which refuses links, so what an attack writes stays in the folder
    assert model.receipt_ is not None and model.info_ is not None
    if model.receipt_.facts["mode"] != "research":
        raise ModeError(
            f"{folder} was made in release mode: an attack reads raw records, and its exact figures would be an unpaid "
            "release about them; fit the same method once more with --seed S and attack that run"
        )
    path = folder / "private" / "run.json"
    if not path.exists() or not (folder / "private" / "data.json").exists():
        raise RunError(
            f"{folder}: private/run.json or private/data.json is gone, so it is not known who was a member; "
            "attack a run before `veilset data clean`, or fit it again"
        )
    if model.info_.max_images_per_unit > 1:
        raise DataError(
            f"max_images_per_unit = {model.info_.max_images_per_unit}: the attack asks about single images, and one "
            "unit of this set has several; attack a run on a set whose unit is one image"
        )
    facts = read_json(path)
    return Run(folder, model, str(facts["data"]), int(facts["seed"]))


def records_of(run: Run, outsiders: str | None) -> tuple[Images, Images, str]:
    """Members and outsiders of a run, and where the outsiders come from.

    Args:
        run: a research run.
        outsiders: the name or path of a set none of whose training records were in the run; None takes the test split
            of the run's own set.

    Raises:
        RunError: the set is no longer the one that was fitted.
        ConfigError: the run's set is named as its own outsiders, or has no test split.
    """
    from veilset.data.load import load

    data = load(run.data)
    if data.info != run.model.info_:
        raise RunError(f"{run.data}: it is declared otherwise than when {run.folder} was fitted on it; restore it")
    members = inspect(data.train, run.seed, run.folder / "private" / "data.json")
    if outsiders is None:
        test = data.test
        if test is None:
            raise ConfigError(
                f"outsiders: {run.data} has no test split to take them from; name a set of records that were not in "
                "the run by --outsiders D"
            )
        public = isinstance(test, Images)
        words = f"test split of {data.info.name}, declared {'public' if public else 'private'}"
        return members, test if isinstance(test, Images) else inspect(test, run.seed), words
    other = load(outsiders)
    if outsiders == run.data or Path(outsiders).resolve() == Path(run.data).resolve():
        raise ConfigError(f"outsiders = {outsiders}: that is the set of the run; name records that were not in it")
    return (
        members,
        inspect(other.train, run.seed),
        f"training split of {other.info.name}, declared not to be in the run",
    )


def inspect(data: PrivateImages, seed: int, kept: Path | None = None) -> Images:
    """The raw records of a set, in research mode; the ledger that says so is this attack's own.

    Args:
        data: private images.
        seed: of the research run.
        kept: the run's private/data.json: the records must have the keyed hash that it holds.

    Raises:
        RunError: they have not.
    """
    from veilset.privacy.gate import Gate
    from veilset.privacy.plan import Plan
    from veilset.privacy.spec import Privacy

    plan = Plan(()).price(Privacy(1.0, allow_large_delta=True), data.info)
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp)
        if kept is not None:
            (folder / "private").mkdir()
            shutil.copy(kept, folder / "private" / "data.json")
        try:
            return Gate(data, plan, seed=seed, folder=folder).inspect(PURPOSE)
        except RunError as e:
            raise RunError(
                f"{data.info.name}: its records are not those that the run was fitted on ({e}); restore them"
            ) from e


def private_images(images: Images, info: PublicInfo) -> PrivateImages:
    """Inspected records as the private set of a shadow model, with the declared facts of the run."""
    from veilset.privacy.private import from_arrays

    x: Any = images.x.numpy()
    return from_arrays(replace(info, value_range=(0.0, 255.0)), x, images.y.numpy())
