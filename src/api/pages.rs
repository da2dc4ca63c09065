//! Incidents and contacts: who was told what, who has it, and the calls that say so.

use std::collections::{BTreeMap, BTreeSet};

use tonic::{Request, Response, Status};

use super::access;
use super::check;
use super::forward::{self, Place};
use super::refuse::{invalid, rejected};
use super::service::{AdminService, FORWARD};
use super::show::ms;
use crate::domain::command::{Change, IncidentRef, Rejection, RejectionCode};
use crate::domain::ids::{ContactName, GroupName, ReceiverName};
use crate::domain::incident::{Incident, NextTelling, Telling, next};
use crate::domain::on_call::{Ladder, Level, OnCall};
use crate::domain::page::{Delivery, Severity};
use crate::domain::state::ClusterState;
use crate::proto;

/// Longest key that is read.
const KEY_CHARS: usize = 400;
/// At most so many are acknowledged by one call.
const KEYS_MAX: usize = 50;

/// Open incidents, of one group or of all, worst and oldest first.
pub(super) fn open(state: &ClusterState, only: Option<&GroupName>) -> Vec<proto::Incident> {
    let wanted = |incident: &&Incident| only.is_none_or(|only| incident.group() == Some(only));
    let mut found: Vec<&Incident> = state.incidents.values().filter(wanted).collect();
    found.sort_by_key(|incident| (incident.severity(), incident.opened));
    found.into_iter().map(|one| incident(state, one)).collect()
}

fn incident(state: &ClusterState, one: &Incident) -> proto::Incident {
    let page = &one.page;
    proto::Incident {
        key: page.key.clone(),
        number: one.opened,
        since_ms: ms(one.at),
        event: page.event.clone(),
        severity: page.severity.word().to_owned(),
        summary: page.summary.clone(),
        group: page.group.as_ref().map(|group| group.0.clone()).unwrap_or_default(),
        run_id: page.run.as_ref().map(|run| run.0.clone()).unwrap_or_default(),
        level: one.level.as_ref().map(level),
        ladder: one.ladder.as_ref().map(|ladder| ladder.0.clone()).unwrap_or_default(),
        tellings: one.tellings.iter().map(|telling| told(state, telling)).collect(),
        acknowledged: one.acknowledged.as_ref().map(|ack| proto::Acknowledgement {
            by: ack.by.0.clone(),
            at_ms: ms(ack.at),
            from: ack.from.clone(),
            reason: ack.reason.clone(),
        }),
        next: coming(&state.on_call, one),
        resolved: one.resolved.as_ref().map(|over| proto::Resolution {
            by: over.by.0.clone(),
            at_ms: ms(over.at),
            summary: over.summary.clone(),
        }),
        test: one.is_test,
        ends_by_itself: state.ends_by_itself(one),
        details: page.details.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
    }
}

fn level(level: &Level) -> proto::IncidentLevel {
    proto::IncidentLevel {
        number: level.number.into(),
        name: level.name.clone(),
        severity: level.severity.word().to_owned(),
        rto_ms: level.rto_ms,
        rpo_ms: level.rpo_ms,
    }
}

fn names(contacts: &[ContactName]) -> Vec<String> {
    contacts.iter().map(|name| name.0.clone()).collect()
}

fn told(state: &ClusterState, telling: &Telling) -> proto::Telling {
    let entry = state.outbox.iter().find(|entry| entry.seq == telling.seq);
    let delivery = |receiver: &ReceiverName| {
        let (kind, at, reason) = match entry.and_then(|entry| entry.deliveries.get(receiver)) {
            Some(Delivery::Pending) => (proto::DeliveryState::Pending, None, ""),
            Some(Delivery::Delivered { at }) => (proto::DeliveryState::Delivered, Some(*at), ""),
            Some(Delivery::Refused { at, reason }) => (proto::DeliveryState::Refused, Some(*at), reason.as_str()),
            None => (proto::DeliveryState::Forgotten, None, ""),
        };
        let (receiver, reason) = (receiver.0.clone(), reason.to_owned());
        proto::PageDelivery { receiver, state: kind.into(), at_ms: at.map(ms), reason }
    };
    proto::Telling {
        at_ms: ms(telling.at),
        seq: telling.seq,
        what: telling.what.clone(),
        contacts: names(&telling.contacts),
        deliveries: telling.receivers.iter().map(delivery).collect(),
    }
}

fn coming(on_call: &OnCall, one: &Incident) -> Option<proto::NextTelling> {
    let next = next(on_call, one)?;
    let ladder = on_call.ladder_for(one.group(), one.severity());
    let step = |n: usize| ladder.and_then(|ladder| ladder.steps.get(n)).map(|step| names(&step.contacts));
    let steps = ladder.map_or(0, |ladder| ladder.steps.len());
    let (what, contacts) = match next.what {
        NextTelling::Step(n) => (format!("step {} of {steps}", n + 1), step(n)),
        NextTelling::Repeat(n) => (format!("repeat {n} of {}", ladder.map_or(0, |ladder| ladder.repeat_max)), None),
        NextTelling::Everybody => ("everybody".to_owned(), None),
        NextTelling::Lapse => ("acknowledgement lapses".to_owned(), step(0)),
    };
    Some(proto::NextTelling { what, at_ms: ms(next.at()), contacts: contacts.unwrap_or_default() })
}

/// An incident by its key, its key without the cluster's name, or its number; of those that are over the newest.
fn find<'a>(state: &'a ClusterState, asked: &str) -> Result<&'a Incident, Status> {
    if asked.is_empty() || asked.len() > KEY_CHARS || asked.chars().any(char::is_control) {
        return Err(invalid("key", format!("must be a key of at most {KEY_CHARS} bytes, or an incident's number")));
    }
    let cluster = state.cluster.as_ref().map(|cluster| cluster.as_str()).unwrap_or_default();
    let number: Option<u64> = asked.trim_start_matches('#').parse().ok();
    let is_meant = |one: &&Incident| {
        let key = one.key();
        let short = key.strip_prefix(cluster).and_then(|rest| rest.strip_prefix('/'));
        key == asked || short == Some(asked) || number == Some(one.opened)
    };
    let found = state.incidents.values().find(is_meant).or_else(|| state.past_incidents.iter().rev().find(is_meant));
    found.ok_or_else(|| {
        Status::not_found(format!("no incident {asked}; `watchdogctl page list --past` shows those that are known"))
    })
}

fn refuse(code: RejectionCode, message: String) -> Status {
    rejected(&Rejection { code, message })
}

fn reference(one: &Incident) -> Result<IncidentRef, Status> {
    match &one.resolved {
        None => Ok(IncidentRef { key: one.key().to_owned(), opened: one.opened }),
        Some(_) => Err(refuse(RejectionCode::Illegal, format!("{} is over already; nothing was changed", one.key()))),
    }
}

impl AdminService {
    pub(super) fn list_open_pages(
        &self,
        ask: &proto::ListPagesRequest,
    ) -> Result<Response<proto::ListPagesResponse>, Status> {
        let only = check::group_or_all(&ask.group)?;
        let state = self.state();
        if let Some(group) = &only {
            self.known_group(&state, group)?;
        }
        let wanted = |one: &&Incident| ask.past && only.as_ref().is_none_or(|only| one.group() == Some(only));
        let past = state.past_incidents.iter().rev().filter(wanted).map(|one| incident(&state, one)).collect();
        let incidents = open(&state, only.as_ref());
        Ok(Response::new(proto::ListPagesResponse { standing: self.standing_of(&state), incidents, past }))
    }

    pub(super) fn get_one_page(&self, ask: &proto::GetPageRequest) -> Result<Response<proto::GetPageResponse>, Status> {
        let state = self.state();
        let found = incident(&state, find(&state, &ask.key)?);
        Ok(Response::new(proto::GetPageResponse { standing: self.standing_of(&state), incident: Some(found) }))
    }

    pub(super) async fn acknowledge(
        &self,
        request: Request<proto::AcknowledgePagesRequest>,
    ) -> Result<Response<proto::AcknowledgePagesResponse>, Status> {
        let caller = access::caller(&request)?;
        let ask = request.get_ref();
        let asked = self.asked(ask.context.as_ref(), &caller)?;
        let group = check::group_or_all(&ask.group)?;
        if ask.keys.is_empty() == group.is_none() || ask.keys.len() > KEYS_MAX {
            return Err(invalid("keys", format!("1 to {KEYS_MAX} keys, or a group")));
        }
        let standing = self.standing();
        if let Place::Leader(leader) = forward::place(&standing, &request)? {
            let mut client = self.reach(&leader, FORWARD).await?;
            let answer = client.acknowledge_pages(forward::carried(request.into_inner(), &standing, &caller)).await;
            return forward::came_back(&leader, answer);
        }
        let state = self.state();
        let found: Vec<&Incident> = match &group {
            Some(group) => {
                self.known_group(&state, group)?;
                state.incidents.values().filter(|one| one.group() == Some(group)).collect()
            }
            None => ask.keys.iter().map(|key| find(&state, key)).collect::<Result<_, _>>()?,
        };
        if let (Some(group), true) = (&group, found.is_empty()) {
            return Err(Status::not_found(format!("group {group} has no open incident; nothing was changed")));
        }
        let pages: BTreeSet<IncidentRef> = found.into_iter().map(reference).collect::<Result<_, _>>()?;
        let keys: Vec<String> = pages.iter().map(|page| page.key.clone()).collect();
        let of_one = self.group_of_all(&state, &keys);
        let reason = asked.reason.clone();
        self.propose(asked, Change::Acknowledge { group: of_one, pages: pages.into_iter().collect(), reason }).await?;
        let state = self.state();
        let incidents = keys.iter().filter_map(|key| state.incidents.get(key)).map(|one| incident(&state, one));
        let incidents = incidents.collect();
        Ok(Response::new(proto::AcknowledgePagesResponse { standing: self.standing_of(&state), incidents }))
    }

    /// The group, where all of these incidents are of one.
    fn group_of_all(&self, state: &ClusterState, keys: &[String]) -> Option<GroupName> {
        let mut groups: Vec<_> = keys.iter().filter_map(|key| state.incidents.get(key)).map(Incident::group).collect();
        groups.dedup();
        if let [Some(group)] = groups.as_slice() { Some((*group).clone()) } else { None }
    }

    pub(super) async fn resolve_one_page(
        &self,
        request: Request<proto::ResolvePageRequest>,
    ) -> Result<Response<proto::ResolvePageResponse>, Status> {
        let caller = access::caller(&request)?;
        let asked = self.asked(request.get_ref().context.as_ref(), &caller)?;
        let standing = self.standing();
        if let Place::Leader(leader) = forward::place(&standing, &request)? {
            let mut client = self.reach(&leader, FORWARD).await?;
            let answer = client.resolve_page(forward::carried(request.into_inner(), &standing, &caller)).await;
            return forward::came_back(&leader, answer);
        }
        let state = self.state();
        let one = find(&state, &request.get_ref().key)?;
        // The same request again finds it over, and gets the first answer.
        let page = IncidentRef { key: one.key().to_owned(), opened: one.opened };
        let (group, reason) = (one.group().cloned(), asked.reason.clone());
        self.propose(asked, Change::ResolvePage { group, page: page.clone(), reason }).await?;
        let state = self.state();
        let over = state.past_incidents.iter().rev().find(|one| one.opened == page.opened && one.key() == page.key);
        let incident = over.map(|one| incident(&state, one));
        Ok(Response::new(proto::ResolvePageResponse { standing: self.standing_of(&state), incident }))
    }

    pub(super) async fn send_test_page(
        &self,
        request: Request<proto::TestPageRequest>,
    ) -> Result<Response<proto::TestPageResponse>, Status> {
        let caller = access::caller(&request)?;
        let ask = request.get_ref();
        let asked = self.asked(ask.context.as_ref(), &caller)?;
        if !ask.receiver.is_empty() && !ask.contact.is_empty() {
            return Err(invalid("contact", "stands beside receiver: give one of them"));
        }
        let standing = self.standing();
        if let Place::Leader(leader) = forward::place(&standing, &request)? {
            let mut client = self.reach(&leader, FORWARD).await?;
            let answer = client.test_page(forward::carried(request.into_inner(), &standing, &caller)).await;
            return forward::came_back(&leader, answer);
        }
        let state = self.state();
        let receivers = test_receivers(&state, ask)?;
        let cluster = state.cluster.as_ref().map(|cluster| cluster.as_str()).unwrap_or_default();
        let key = format!("{cluster}/test/{}", asked.request_id);
        let reason = asked.reason.clone();
        self.propose(asked, Change::TestPage { key: key.clone(), receivers, reason }).await?;
        let state = self.state();
        let found = state.incidents.get(&key).map(|one| incident(&state, one));
        Ok(Response::new(proto::TestPageResponse { standing: self.standing_of(&state), incident: found }))
    }

    pub(super) fn list_all_contacts(
        &self,
        ask: &proto::ListContactsRequest,
    ) -> Result<Response<proto::ListContactsResponse>, Status> {
        let only = check::group_or_all(&ask.group)?;
        let state = self.state();
        if let Some(group) = &only {
            self.known_group(&state, group)?;
        }
        let on_call = &state.on_call;
        let fits = |ladder: &&Ladder| {
            only.as_ref().is_none_or(|only| ladder.groups.is_empty() || ladder.groups.contains(only))
        };
        let contacts = on_call.contacts.iter().map(|(name, one)| proto::Contact {
            name: name.0.clone(),
            role: one.role.clone(),
            phone: one.phone.clone().unwrap_or_default(),
            mail: one.mail.clone().unwrap_or_default(),
            url: one.url.clone().unwrap_or_default(),
            receivers: one.receivers.iter().map(|receiver| receiver.0.clone()).collect(),
        });
        let groups = state.groups.keys().filter(|group| only.as_ref().is_none_or(|only| only == *group)).map(Some);
        let levels_of = |group: Option<&GroupName>| proto::GroupLevels {
            group: group.map(|group| group.0.clone()).unwrap_or_default(),
            levels: on_call.levels_of(group).values().map(level).collect(),
        };
        Ok(Response::new(proto::ListContactsResponse {
            standing: self.standing_of(&state),
            contacts: contacts.collect(),
            ladders: on_call.ladders.iter().filter(fits).map(ladder).collect(),
            levels: groups.chain(only.is_none().then_some(None)).map(levels_of).collect(),
            receivers: state.receivers.iter().map(|receiver| receiver.0.clone()).collect(),
        }))
    }
}

fn ladder(ladder: &Ladder) -> proto::Ladder {
    let step = |step: &crate::domain::on_call::LadderStep| proto::LadderStep {
        after_ms: step.after_ms,
        contacts: names(&step.contacts),
    };
    proto::Ladder {
        name: ladder.name.0.clone(),
        groups: ladder.groups.iter().map(|group| group.0.clone()).collect(),
        severities: ladder.severities.iter().map(|one| one.word().to_owned()).collect(),
        steps: ladder.steps.iter().map(step).collect(),
        repeat_every_ms: ladder.repeat_every_ms,
        repeat_max: ladder.repeat_max,
        critical_ack_lasts_ms: ladder.ack_lasts(Severity::Critical).unwrap_or_default(),
        ack_lasts_ms: ladder.ack_lasts(Severity::Error).unwrap_or_default(),
    }
}

fn test_receivers(state: &ClusterState, ask: &proto::TestPageRequest) -> Result<BTreeSet<ReceiverName>, Status> {
    if !ask.receiver.is_empty() {
        return check::name("receiver", &ask.receiver).map(|name| BTreeSet::from([ReceiverName::from(name)]));
    }
    if ask.contact.is_empty() {
        return match state.receivers.is_empty() {
            true => Err(refuse(
                RejectionCode::OtherConfig,
                "no [[receiver]] is configured: nobody would be told".to_owned(),
            )),
            false => Ok(state.receivers.iter().cloned().collect()),
        };
    }
    let name = ContactName::from(check::name("contact", &ask.contact)?);
    let known: &BTreeMap<_, _> = &state.on_call.contacts;
    let Some(contact) = known.get(&name) else {
        let all: Vec<&str> = known.keys().map(ContactName::as_str).collect();
        let all =
            if all.is_empty() { "none are configured".to_owned() } else { format!("there are: {}", all.join(", ")) };
        return Err(Status::not_found(format!("no contact {name}; {all}")));
    };
    if contact.receivers.is_empty() {
        let message = format!("{name} has no receivers: they are called by hand (`watchdogctl contact list`)");
        return Err(refuse(RejectionCode::Illegal, message));
    }
    Ok(contact.receivers.iter().cloned().collect())
}
