"""One caller with many jobs keeps no other from having its own taken and run."""

from pathlib import Path

import msgspec
import pytest

from models.errors import Overloaded
from service.jobs.store import JobState
from tests.service.jobs.yard import Yard, run

pytestmark = pytest.mark.timeout(60)


def test_owners_in_turn(tmp_path: Path) -> None:
    """Whoever has asked for many waits for who has asked for one; each one's own come in their order."""
    yard = Yard(tmp_path, jobs_running=1)
    owners = ["many", "many", "many", "one", "other", "one"]
    jobs = [yard.submit("1", owner=owner) for owner in owners]

    async def work() -> None:
        async with yard.led():
            for identity in jobs:
                await yard.until(identity, JobState.DONE)
        found = sorted(map(yard.job, jobs), key=lambda job: job.started or 0.0)
        assert [job.owner for job in found] == ["many", "one", "other", "many", "one", "many"]
        assert [job.id for job in found if job.owner == "many"] == jobs[:3]

    run(work)


def test_half_for_one(tmp_path: Path) -> None:
    """One key may have half of the jobs that may wait; without keys there is one owner, who may have all."""
    yard = Yard(tmp_path)
    template = yard.job(yard.submit("1", owner="many"))

    def submit(number: int, owner: str) -> None:
        yard.store.submit(msgspec.structs.replace(template, id=f"x{number}", owner=owner), 6)

    submit(1, "many")
    submit(2, "many")
    with pytest.raises(Overloaded, match="half of all"):
        submit(3, "many")
    for number in range(4, 7):
        submit(number, "")
    with pytest.raises(Overloaded, match="as many jobs are waiting"):
        submit(7, "one")
