"""What left the node: noted before it does, and the files that nothing needs any more."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from dicom_node.base.orders import Delivery
from dicom_node.base.sent import NotedObject
from dicom_node.base.types import DeliveryState, Standing
from dicom_node.jobs.database import Database, portions
from dicom_node.jobs.tables import deliveries, instances, results, sent_objects

ENDED = (DeliveryState.DELIVERED, DeliveryState.WITHDRAWN)
NOT_THERE = (Standing.EXPIRED, Standing.SUPERSEDED, Standing.LOST)


class SentBook(Database):
    """Objects that left the node."""

    def is_sent(self, path: str) -> bool:
        """Whether it is noted that this object left the node, and that its file is there."""
        with self._read() as connection:
            this = sa.exists().where(sent_objects.c.path == path, sent_objects.c.kept)
            return bool(connection.scalar(sa.select(this)))

    def note_sent(self, delivery: Delivery, sent: NotedObject, at: float) -> None:
        """Note what leaves the node with this delivery. Safe to repeat; what left before has its file again."""
        values = {"study_id": delivery.study_id, "kept": True, "noted_at": at} | vars(sent)
        with self._write() as connection:
            new = self._insert(sent_objects).values(**values)
            again = {"kept": True, "noted_at": at}
            gone = sent_objects.c.kept == sa.false()
            connection.execute(new.on_conflict_do_update(index_elements=[sent_objects.c.path], set_=again, where=gone))

    def sent(self, paths: Sequence[str]) -> dict[str, NotedObject]:
        """What is noted of these objects, by path."""
        found: dict[str, NotedObject] = {}
        with self._read() as connection:
            for portion in portions(paths):
                query = sa.select(sent_objects).where(sent_objects.c.path.in_(portion))
                for row in connection.execute(query):
                    uids = row.sop_class_uid, row.sop_instance_uid, row.series_instance_uid
                    found[row.path] = NotedObject(row.path, *uids, row.header)
        return found

    def unneeded(self, before: float, limit: int = 200) -> list[str]:
        """Paths of objects that are still there and were not sent since `before`, or whose study has expired.

        Only what every destination has (and has committed to keep, where it is asked to), or was not to have any more.
        An object of which a rejection note is still to be written is one.
        """
        mine = deliveries.c.path == sent_objects.c.path
        waits = sa.exists().where(mine, deliveries.c.state.not_in(ENDED))
        lately = sa.exists().where(mine, deliveries.c.delivered_at >= before)
        of_study = instances.c.study_id == sent_objects.c.study_id
        expired = sa.exists().where(of_study, instances.c.image, instances.c.standing == Standing.EXPIRED)
        there = sa.exists().where(of_study, instances.c.image, instances.c.standing.not_in(NOT_THERE))
        old = (sent_objects.c.noted_at < before) & ~lately
        due = sa.exists().where(results.c.study_id == sent_objects.c.study_id, results.c.withdrawal_due)
        query = sa.select(sent_objects.c.path).where(sent_objects.c.kept, old | (expired & ~there), ~waits, ~due)
        with self._read() as connection:
            return list(connection.scalars(query.order_by(sent_objects.c.noted_at).limit(limit)))

    def bytes_deleted(self, paths: Sequence[str]) -> None:
        """Note that the files of these objects are gone."""
        with self._write() as connection:
            for portion in portions(paths):
                these = sent_objects.update().where(sent_objects.c.path.in_(portion))
                connection.execute(these.values(kept=False))
