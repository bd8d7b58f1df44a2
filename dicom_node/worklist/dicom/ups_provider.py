"""UPS SCP (PS3.4 annex CC): N-CREATE, N-SET, N-GET, N-ACTION and C-FIND over a store.

Success is answered only after the store's call returned; events are queued by the same call and sent by somebody else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID
from pynetdicom.events import Event as AssociationEvent

from dicom_node.base.ups_settings import Subscriber
from dicom_node.base.workitems import (
    DuplicateWorkitem,
    GlobalSubscription,
    StaleWorkitem,
    Subscription,
    UpsEvent,
    UpsLimits,
    UpsQuery,
    UpsState,
    Workitem,
)
from dicom_node.worklist.dicom import dataset as data_sets
from dicom_node.worklist.dicom import matching, ups_events, ups_states
from dicom_node.worklist.dicom import workitem as workitems
from dicom_node.worklist.dicom.answering import (
    PROCESSING_FAILURE,
    RESOURCE_LIMITATION,
    SUCCESS,
    Answer,
    Refusal,
    answer_for,
    find,
    parameter,
    refusal,
    status,
)
from dicom_node.worklist.dicom.dataset import is_empty, text_of
from dicom_node.worklist.dicom.query import ups_query
from dicom_node.worklist.dicom.ups_events import GLOBAL_SUBSCRIPTION
from dicom_node.worklist.dicom.ups_states import WORDS, CancelAction
from dicom_node.worklist.dicom.ups_store import UpsStore
from dicom_node.worklist.dicom.workitem import NEVER_RETURNED, UPS_PUSH

UPS_WATCH = "1.2.840.10008.5.1.4.34.6.2"
UPS_PULL = "1.2.840.10008.5.1.4.34.6.3"
UPS_QUERY = "1.2.840.10008.5.1.4.34.6.5"
FILTERED_GLOBAL_SUBSCRIPTION = "1.2.840.10008.5.1.4.34.5.1"
GLOBAL = (GLOBAL_SUBSCRIPTION, FILTERED_GLOBAL_SUBSCRIPTION)

CHANGE_STATE, REQUEST_CANCEL, SUBSCRIBE, UNSUBSCRIBE, SUSPEND = 1, 2, 3, 4, 5
#: Tables CC.2-1 to CC.2-5: what may be asked on which presentation context.
ACTIONS: dict[str, tuple[int, ...]] = {
    UPS_PUSH: (REQUEST_CANCEL,),
    UPS_PULL: (CHANGE_STATE,),
    UPS_WATCH: (REQUEST_CANCEL, SUBSCRIBE, UNSUBSCRIBE, SUSPEND),
}
CREATES, SETS = (UPS_PUSH,), (UPS_PULL,)
GETS, FINDS = (UPS_PUSH, UPS_PULL, UPS_WATCH), (UPS_PULL, UPS_WATCH, UPS_QUERY)
OFFERED = (UPS_PUSH, UPS_WATCH, UPS_PULL, UPS_QUERY)

WITH_MODIFICATIONS = 0xB300
SOME_NOT_SUPPORTED = 0x0001
NO_SUCH_ARGUMENT = 0x0114
INVALID_ARGUMENT = 0x0115
INVALID_INSTANCE = 0x0117
CLASS_INSTANCE_CONFLICT = 0x0119
NO_SUCH_ACTION = 0x0123
UNRECOGNIZED_OPERATION = 0x0211
UNKNOWN_RECEIVER = 0xC308
NOT_FOR_THIS_INSTANCE = 0xC314
ATTEMPTS = 5  # how often a change is judged anew when somebody else was faster
TOO_LARGE = "larger than worklist.max_step_bytes"
SERVICE = "unified procedure step"
NO_MORE_THAN = UpsLimits()


class UpsProvider:
    """Answers the requests of UPS Push, Pull, Watch and Query.

    receiver_of: the configured subscriber of an AE title, None when there is none (0xC308). now: DICOM DT. limits: past
    them a request ends with 0x0213, Resource Limitation, or, being too large itself, with 0x0110 (PS3.7 annex C).
    """

    def __init__(
        self,
        store: UpsStore,
        receiver_of: Callable[[str], Subscriber | None],
        now: Callable[[], str] = workitems.local_now,
        limits: UpsLimits = NO_MORE_THAN,
    ) -> None:
        self._store = store
        self._receiver_of = receiver_of
        self._now = now
        self._limits = limits

    def on_find(self, event: AssociationEvent) -> Iterator[Answer]:
        """Responses to one C-FIND (CC.2.8)."""
        return find(event, SERVICE, lambda: self._answers(event))

    def on_create(self, event: AssociationEvent) -> Answer:
        """N-CREATE (CC.2.5)."""
        return _answered(lambda: self._create(event))

    def on_set(self, event: AssociationEvent) -> Answer:
        """N-SET (CC.2.6)."""
        return _answered(lambda: self._set(event))

    def on_get(self, event: AssociationEvent) -> Answer:
        """N-GET (CC.2.7)."""
        return _answered(lambda: self._get(event))

    def on_action(self, event: AssociationEvent) -> Answer:
        """N-ACTION: change state, request cancel, subscribe, unsubscribe, suspend (CC.2.1 to CC.2.3)."""
        return _answered(lambda: self._act(event))

    def create(
        self, sop_instance_uid: str, attributes: Dataset, study_instance_uid: str | None = None, created_by: str = ""
    ) -> Dataset:
        """Keep a new work item of a peer or of the node's own; the attributes that were added.

        attributes: plain. study_instance_uid: of the node's own, the study that it stands for. created_by: the peer's
        AE title. Raises Refusal (table CC.2.5-3), DuplicateWorkitem or a RetriableError.
        """
        workitem, added = workitems.created(sop_instance_uid, attributes, self._now())
        workitem = replace(workitem, created_by=created_by)
        if study_instance_uid is not None:
            workitem = replace(workitem, study_instance_uid=study_instance_uid, written=data_sets.write(attributes))
        present = self._store.global_subscriptions()
        self._store.create_workitem(workitem, _subscriptions(workitem, present), ups_events.events_of(None, workitem))
        # Who subscribed between the two calls has not looked for this work item yet, or missed it.
        late = [one for one in self._store.global_subscriptions() if one not in present]
        for subscription in _subscriptions(workitem, late):
            if subscription.ae_title not in self._store.subscribers_of(sop_instance_uid):
                self._tell_and_subscribe(workitem, subscription)
        return added

    def _create(self, event: AssociationEvent) -> Answer:
        _check_context(event, CREATES, parameter(event, "AffectedSOPClassUID"))
        sop_instance_uid = _checked_uid(parameter(event, "AffectedSOPInstanceUID"))
        attributes = self._read(event, parameter(event, "AttributeList"))
        if self._store.workitem(sop_instance_uid) is not None:
            raise Refusal(ups_states.DUPLICATE_SOP_INSTANCE, "there is such a UPS")
        requesting_ae = _requesting_ae(event)
        self._check_room(requesting_ae)
        try:
            added = self.create(sop_instance_uid, attributes, created_by=requesting_ae)
        except DuplicateWorkitem as error:
            raise Refusal(ups_states.DUPLICATE_SOP_INSTANCE, "there is such a UPS") from error
        return status(WITH_MODIFICATIONS if added else SUCCESS), added or None

    def _set(self, event: AssociationEvent) -> Answer:
        _check_context(event, SETS, parameter(event, "RequestedSOPClassUID"))
        modifications = self._read(event, parameter(event, "ModificationList"))
        transaction_uid = text_of(modifications, "TransactionUID")

        def change(workitem: Workitem) -> tuple[Workitem, list[UpsEvent]]:
            _accept(ups_states.set_attributes(workitems.step_of(workitem), transaction_uid))
            new = workitems.with_set(workitem, modifications, self._now())
            if len(new.encoded) > max(self._limits.step_bytes, len(workitem.encoded)):
                raise Refusal(PROCESSING_FAILURE, TOO_LARGE)
            return new, ups_events.events_of(workitem, new)

        self._change(event, change)
        return status(SUCCESS), None

    def _get(self, event: AssociationEvent) -> Answer:
        _check_context(event, GETS, parameter(event, "RequestedSOPClassUID"))
        workitem = self._existing(event)
        attributes, complete = workitems.selected(workitem, event.attribute_identifiers)
        return status(SUCCESS if complete else SOME_NOT_SUPPORTED), data_sets.for_answer(attributes)

    def _act(self, event: AssociationEvent) -> Answer:
        context = str(event.context.abstract_syntax)
        _check_context(event, tuple(ACTIONS), parameter(event, "RequestedSOPClassUID"))
        kind = event.action_type
        if kind not in ACTIONS[context]:
            raise Refusal(NO_SUCH_ACTION, "no such action on this presentation context")
        information = self._read(event, parameter(event, "ActionInformation"))
        if kind == CHANGE_STATE:
            return self._change_state(event, information)
        if kind == REQUEST_CANCEL:
            return self._request_cancel(event, information)
        return self._change_subscription(event, kind, information)

    def _change_state(self, event: AssociationEvent, information: Dataset) -> Answer:
        transaction_uid = text_of(information, "TransactionUID")
        wanted = text_of(information, "ProcedureStepState")
        if wanted not in list(UpsState):
            raise Refusal(INVALID_ARGUMENT, "ProcedureStepState is none of the states", Tag("ProcedureStepState"))
        if transaction_uid and not UID(transaction_uid).is_valid:
            raise Refusal(INVALID_ARGUMENT, "TransactionUID is no UID", Tag("TransactionUID"))
        state = UpsState(wanted)

        def change(workitem: Workitem) -> tuple[Workitem, list[UpsEvent]]:
            met = state not in ups_states.FINAL or workitems.final_state_met(workitem, state)
            _accept(ups_states.change_state(workitems.step_of(workitem), state, transaction_uid, met))
            new = workitems.with_state(workitem, state, transaction_uid, self._now())
            return new, ups_events.events_of(workitem, new)

        self._change(event, change)
        return status(SUCCESS), None

    def _request_cancel(self, event: AssociationEvent, information: Dataset) -> Answer:
        requesting_ae = _requesting_ae(event)

        def change(workitem: Workitem) -> tuple[Workitem, list[UpsEvent]]:
            code, action = ups_states.request_cancel(workitems.step_of(workitem))
            _accept(code)
            if action is CancelAction.REPORT:
                if not self._store.subscribers_of(workitem.sop_instance_uid):
                    _accept(ups_states.PERFORMER_NOT_REACHED)
                return workitem, [ups_events.cancel_requested(workitem, requesting_ae, information)]
            claimed, canceled = workitems.canceled(workitem, information, self._now())
            return canceled, [ups_events.state_report(claimed), ups_events.state_report(canceled)]

        self._change(event, change)
        return status(SUCCESS), None

    def _change(
        self,
        event: AssociationEvent,
        change: Callable[[Workitem], tuple[Workitem, list[UpsEvent]]],
    ) -> None:
        """Judge and change the requested work item; when somebody else was faster, judge what they left."""
        for attempt in range(ATTEMPTS):
            workitem = self._existing(event)
            new, events = change(workitem)
            try:
                self._store.update_workitem(new, workitem.version, events)
            except StaleWorkitem:
                if attempt + 1 == ATTEMPTS:
                    raise
            else:
                return

    def _change_subscription(self, event: AssociationEvent, kind: int, information: Dataset) -> Answer:
        sop_instance_uid = _checked_uid(parameter(event, "RequestedSOPInstanceUID"))
        ae_title = text_of(information, "ReceivingAE")
        if not ae_title:
            raise Refusal(NO_SUCH_ARGUMENT, "ReceivingAE is missing", Tag("ReceivingAE"))
        everywhere = sop_instance_uid in GLOBAL
        if not everywhere and self._store.workitem(sop_instance_uid) is None:
            _accept(ups_states.NO_SUCH_UPS)
        if kind == SUBSCRIBE:
            self._subscribe(sop_instance_uid, ae_title, information)
        elif kind == SUSPEND and not everywhere:
            raise Refusal(NOT_FOR_THIS_INSTANCE, "only a global subscription can be suspended")
        elif kind == SUSPEND:
            self._store.suspend_subscription(ae_title)
        elif everywhere:
            self._store.unsubscribe_globally(ae_title)
        else:
            self._store.unsubscribe(sop_instance_uid, ae_title)
        return status(SUCCESS), None

    def _subscribe(self, sop_instance_uid: str, ae_title: str, information: Dataset) -> None:
        if self._receiver_of(ae_title) is None:
            raise Refusal(UNKNOWN_RECEIVER, "Receiving AE is not known here", Tag("ReceivingAE"))
        lock = text_of(information, "DeletionLock")
        if lock not in ("TRUE", "FALSE"):
            raise Refusal(INVALID_ARGUMENT, "DeletionLock is neither TRUE nor FALSE", Tag("DeletionLock"))
        if sop_instance_uid in GLOBAL:
            filtered = sop_instance_uid == FILTERED_GLOBAL_SUBSCRIPTION
            self._subscribe_globally(ae_title, lock == "TRUE", _match_keys(information) if filtered else None)
            return
        workitem = self._store.workitem(sop_instance_uid)
        if workitem is None:
            raise Refusal(ups_states.NO_SUCH_UPS, WORDS[ups_states.NO_SUCH_UPS])
        self._tell_and_subscribe(workitem, Subscription(sop_instance_uid, ae_title, lock == "TRUE"))

    def _subscribe_globally(self, ae_title: str, lock: bool, keys: Dataset | None) -> None:
        """Table CC.2.3-2: all work items the AE is not subscribed to yet; with a lock it is told of each."""
        subscription = GlobalSubscription(ae_title, lock, None if keys is None else data_sets.write(keys))
        self._store.subscribe_globally(subscription)
        for workitem in self._store.workitems(UpsQuery() if keys is None else ups_query(keys)):
            if ae_title in self._store.subscribers_of(workitem.sop_instance_uid):
                continue
            for specific in _subscriptions(workitem, [subscription]):
                if lock:
                    self._tell_and_subscribe(workitem, specific)
                else:
                    self._store.subscribe(specific)

    def _tell_and_subscribe(self, workitem: Workitem, subscription: Subscription) -> None:
        """Subscribe the AE and have it told the state; again when somebody changed that meanwhile."""
        told, present = 0, workitem
        while present.version != told:
            told = present.version
            self._store.subscribe(subscription, [ups_events.state_report(present).to(subscription.ae_title)])
            present = self._store.workitem(present.sop_instance_uid) or present

    def _answers(self, event: AssociationEvent) -> Iterator[tuple[Dataset, bool]]:
        _check_context(event, FINDS, event.context.abstract_syntax, str(event.context.abstract_syntax))
        identifier = data_sets.read(parameter(event, "Identifier"), str(event.context.transfer_syntax))
        for tag in NEVER_RETURNED:
            identifier.pop(tag, None)
        matching.check(identifier)
        for workitem in self._store.workitems(ups_query(identifier)):
            attributes = workitems.attributes_of(workitem)
            if matching.matches(identifier, attributes):
                answer, complete = matching.project(identifier, attributes)
                yield answer_for(answer, identifier), complete

    def _check_room(self, requesting_ae: str) -> None:
        """Requests at the same moment may each take the last place: the limit is passed by few, not by many."""
        of_one, of_all = self._store.open_workitems(requesting_ae)
        if of_one >= self._limits.open_steps_of_one:
            raise Refusal(RESOURCE_LIMITATION, "too many UPS of this AE that are not final")
        if of_all >= self._limits.open_steps:
            raise Refusal(RESOURCE_LIMITATION, "too many UPS that are not final")

    def _read(self, event: AssociationEvent, encoded: BytesIO | None) -> Dataset:
        if encoded is not None and len(encoded.getvalue()) > self._limits.step_bytes:
            raise Refusal(PROCESSING_FAILURE, TOO_LARGE)
        return data_sets.read(encoded, str(event.context.transfer_syntax))

    def _existing(self, event: AssociationEvent) -> Workitem:
        workitem = self._store.workitem(_checked_uid(parameter(event, "RequestedSOPInstanceUID")))
        if workitem is None:
            raise Refusal(ups_states.NO_SUCH_UPS, WORDS[ups_states.NO_SUCH_UPS])
        return workitem


def _answered(service: Callable[[], Answer]) -> Answer:
    try:
        return service()
    except Exception as error:  # noqa: BLE001 - the association's edge: every error becomes a status
        return refusal(error, SERVICE, PROCESSING_FAILURE, RESOURCE_LIMITATION), None


def _accept(code: int) -> None:
    if code != SUCCESS:
        raise Refusal(code, WORDS[code])


def _check_context(
    event: AssociationEvent, allowed: tuple[str, ...], sop_class: object, expected: str = UPS_PUSH
) -> None:
    """CC.3.1.1: whatever was negotiated, the instance is one of UPS Push."""
    if str(event.context.abstract_syntax) not in allowed:
        raise Refusal(UNRECOGNIZED_OPERATION, "not a service of this presentation context")
    if str(sop_class) != expected:
        raise Refusal(CLASS_INSTANCE_CONFLICT, "SOP class is not UPS Push")


def _checked_uid(uid: object) -> str:
    if not uid or not UID(str(uid)).is_valid:
        raise Refusal(INVALID_INSTANCE, "SOP Instance UID is missing or is no UID")
    return str(uid)


def _requesting_ae(event: AssociationEvent) -> str:
    return str(event.assoc.requestor.ae_title).strip()


def _match_keys(information: Dataset) -> Dataset:
    keys = Dataset()
    for element in information:
        if element.keyword not in ("ReceivingAE", "DeletionLock", "TransactionUID"):
            keys.add(element)
    if all(is_empty(element) for element in keys):
        raise Refusal(NO_SUCH_ARGUMENT, "no matching keys for a filtered subscription")
    matching.check(keys)
    return keys


def _subscriptions(workitem: Workitem, wanted: Sequence[GlobalSubscription]) -> list[Subscription]:
    """The subscriptions to a work item that global ones bring about."""
    attributes = workitems.attributes_of(workitem)
    return [
        Subscription(workitem.sop_instance_uid, one.ae_title, one.deletion_lock)
        for one in wanted
        if one.filter is None or matching.matches(data_sets.read(one.filter), attributes)
    ]
