//! Asking the directory: sessions with it, requests over them, answers from it.

use std::net::IpAddr;

use mixline_protocol::address;
use mixline_protocol::directory::{RequestBody, Response, ResponseBody};
use mixline_protocol::records::{Lease, LeaseRequest, NameRecord, ServiceDescriptor};

use super::Engine;
use crate::clock::Now;
use crate::command::{Answer, Command, NamedService, Outcome, Question, RequestNumber};
use crate::directory::pending::{Asker, Query, misfit};
use crate::directory::pseudonyms::Pseudonym;
use crate::error::QueryError;
use crate::keys::SessionKey;
use crate::random::shuffle;
use crate::session::{Phase, Target};

/// Tails that only this side has among the targets of a handshake with a silent peer: they are older than
/// what the directory says, and nobody else knows them.
const PRIVATE_TARGETS: usize = 2;
/// Why nobody is asked at present, for a person.
const NO_DIRECTORY: &str = "the snapshot does not say how a directory is reached";
const NO_TAILS: &str = "the directory has no tails in the snapshot yet";
/// How long a claimed name lives, seconds, unless it is renewed.
const NAME_LIFE: u64 = 7 * 24 * 3600;

impl Engine {
    /// Takes a command of the outside.
    pub fn handle_command(&mut self, command: Command, now: Now) {
        match command {
            Command::Ask(number, question) => self.handle_question(number, question, now),
            Command::Learn(descriptor) => self.learn(*descriptor, now),
            Command::SetLease(lease) => self.use_lease(*lease, now),
            Command::Reconfigure(config) => self.reconfigure(*config, now),
            Command::SetAccess(access) => self.set_access(&access, now),
            Command::HostChanged => self.host_changed(now),
            Command::Shutdown => self.shut_down(now),
        }
    }

    /// Answers a question, or begins to ask the directory.
    fn handle_question(&mut self, number: RequestNumber, question: Question, now: Now) {
        let said = self.said(Pseudonym::Own, now);
        let (body, asker) = match question {
            Question::Publish => {
                self.needs_maintenance = true;
                return self.publish_now(number, now);
            }
            Question::Status => {
                let status = Box::new(self.status(now));
                return self.reply(number, Ok(Answer::Status(status)));
            }
            Question::Ping {
                id,
                count,
                interval,
            } => return self.begin_ping(number, id, count, interval, now),
            Question::Guards => {
                let guards = self.guard_targets();
                return self.reply(number, Ok(Answer::Guards(guards)));
            }
            Question::LookupName(label) => {
                (RequestBody::LookupName(label), Asker::Name(label, number))
            }
            Question::LookupId(id) => (
                self.authorisations
                    .lookup(id, self.said(Pseudonym::Asking, now).unix()),
                Asker::Id(id, number),
            ),
            Question::LookupAddress(address) => (
                self.authorisations
                    .lookup_address(address, self.said(Pseudonym::Asking, now).unix()),
                Asker::Address(address, number),
            ),
            Question::NameOf(id) => (RequestBody::NameOf(id), Asker::NameOf(id, number)),
            Question::Lease => {
                let wanted = self.pseudonyms.lease(now.unix()).map(|lease| lease.ipv4);
                let key = &self.pseudonyms.get(Pseudonym::Own).key;
                (
                    RequestBody::Lease(LeaseRequest::new(said.unix(), wanted, key)),
                    Asker::Lease(number),
                )
            }
            Question::ClaimName(label) => {
                let version = self.own_versions.next(said);
                let own = self.pseudonyms.get(Pseudonym::Own);
                let record = NameRecord {
                    label,
                    id: own.id,
                    version,
                    issued: said.unix(),
                    expires: said.unix().plus(NAME_LIFE),
                    signature: [0; mixline_protocol::identity::SIGNATURE],
                };
                match record.sign(&own.key) {
                    Ok(record) => (
                        RequestBody::ClaimName(record),
                        Asker::Claim(version, number),
                    ),
                    Err(error) => {
                        return self.reply(number, Err(QueryError::Invalid(error.to_string())));
                    }
                }
            }
        };
        self.ask_directory(body, asker, now);
        self.needs_maintenance = true;
    }

    /// Asks the directory, unless too much is asked already.
    pub(super) fn ask_directory(&mut self, body: RequestBody, asker: Asker, now: Now) {
        let number = asker.number();
        let address = match asker {
            Asker::Packets(address) => Some(address),
            _ => None,
        };
        let ping = match asker {
            Asker::Ping(_, number) => Some(number),
            _ => None,
        };
        let Err(error) = self.queries.ask(body, asker, now.instant, &mut self.rng) else {
            return;
        };
        if let Some(number) = ping {
            self.fail_ping(number, error.clone());
        }
        if let Some(number) = number {
            self.reply(number, Err(error));
        }
        if let Some(address) = address {
            // Packets wait for no answer that nobody was asked for.
            self.resolved(address, Err(()), now);
        }
    }

    /// Answers a question of the outside.
    pub(super) fn reply(&mut self, number: RequestNumber, outcome: Outcome) {
        self.answers_ready.push_back((number, outcome));
    }

    /// The next question that is answered, and how.
    pub fn next_answer(&mut self) -> Option<(RequestNumber, Outcome)> {
        self.answers_ready.pop_front()
    }

    /// Uses a lease from now on. Peers hear of another address by new handshakes.
    fn use_lease(&mut self, lease: Lease, now: Now) {
        let old = self.pseudonyms.lease(now.unix()).map(|lease| lease.ipv4);
        if !self.pseudonyms.set_lease(lease) {
            return;
        }
        self.needs_maintenance = true;
        if old == Some(lease.ipv4) {
            return;
        }
        for (_, session) in self.sessions.iter_mut() {
            session.rekey |= session.pseudonym == Pseudonym::Own;
        }
    }

    /// Sends the questions that are due, and opens the sessions that they need.
    pub(super) fn drive_queries(&mut self, now: Now) {
        for query in self.queries.overdue(now.instant) {
            let why = self
                .queries
                .last_error
                .clone()
                .unwrap_or_else(|| self.obstacle());
            self.failed(&query, QueryError::Timeout(why), now);
        }
        for pseudonym in [Pseudonym::Asking, Pseudonym::Publishing] {
            if self.queries.any_as(pseudonym) {
                self.ask_as(pseudonym, now);
            }
        }
    }

    fn ask_as(&mut self, pseudonym: Pseudonym, now: Now) {
        let Some(network) = &self.network else { return };
        let Some(directory) = network.directory(now.unix()).cloned() else {
            // Requests wait as they do without a snapshot.
            self.queries.last_error = Some(NO_DIRECTORY.into());
            return;
        };
        let key = match self.by_peer.get(&(pseudonym, directory.id)).copied() {
            Some(key) => key,
            None => {
                let Some(key) = self.open(pseudonym, &directory, false, now) else {
                    self.queries.last_error = Some(NO_TAILS.into());
                    return;
                };
                key
            }
        };
        if self
            .sessions
            .get(key)
            .is_some_and(|s| s.phase == Phase::Established && s.doubt.is_none())
        {
            for message in self.queries.due(pseudonym, now.instant) {
                self.send_message(key, &message, now);
            }
        }
    }

    /// A message has come from the directory, to one of the throw-away IDs.
    pub(super) fn answer(&mut self, pseudonym: Pseudonym, message: &[u8], now: Now) {
        let Some(network) = &self.network else { return };
        let directory = network.grants_leases();
        let response = match Response::decode_and_verify(message, &directory, now.unix()) {
            Ok(response) => response,
            Err(error) => {
                self.queries.last_error = Some(format!("its answer is not valid: {error}"));
                return;
            }
        };
        if let ResponseBody::Refused { code, text } = &response.body
            && code.again_later()
        {
            // The question stays, and is repeated.
            self.queries.last_error = Some(text.clone());
            return;
        }
        if let Some(query) = self.queries.answered(pseudonym, response.id) {
            self.queries.last_error = None;
            self.settle(query, response.body, now);
        }
    }

    fn settle(&mut self, query: Query, body: ResponseBody, now: Now) {
        let (number, answer) = match (query.asker, body) {
            (Asker::Publish(version, number), ResponseBody::Done) => {
                self.publication(version, Ok(()), now);
                let Some(number) = number else { return };
                (number, Answer::Done)
            }
            (Asker::Claim(version, number), ResponseBody::Done) => {
                self.own_versions.accept(version);
                (number, Answer::Done)
            }
            (Asker::Lease(number), ResponseBody::Lease(lease))
                if lease.id == self.pseudonyms.get(Pseudonym::Own).id =>
            {
                self.use_lease(lease, now);
                (number, Answer::Lease(Box::new(lease)))
            }
            (Asker::Name(label, number), ResponseBody::Named { name, descriptor })
                if name.label == label =>
            {
                if descriptor.is_none() && self.authorisations.with(&name.id).is_some() {
                    // The directory says where it is reached to whom it shows that it is a client.
                    let body = self
                        .authorisations
                        .lookup(name.id, self.said(Pseudonym::Asking, now).unix());
                    return self.ask_directory(body, Asker::Named(Box::new(name), number), now);
                }
                if let Some(descriptor) = &descriptor {
                    self.learn(descriptor.clone(), now);
                }
                let named = NamedService { name, descriptor };
                (number, Answer::Named(Some(Box::new(named))))
            }
            (Asker::Named(name, number), ResponseBody::Descriptor(found))
                if found.id == name.id =>
            {
                self.learn(found.clone(), now);
                let named = NamedService {
                    name: *name,
                    descriptor: Some(found),
                };
                (number, Answer::Named(Some(Box::new(named))))
            }
            (Asker::Named(name, number), ResponseBody::NotFound) => {
                let named = NamedService {
                    name: *name,
                    descriptor: None,
                };
                (number, Answer::Named(Some(Box::new(named))))
            }
            (Asker::Name(_, number), ResponseBody::NotFound) => (number, Answer::Named(None)),
            (Asker::Id(id, number), ResponseBody::Descriptor(found)) if found.id == id => {
                self.learn(found.clone(), now);
                (number, Answer::Descriptor(Some(Box::new(found))))
            }
            (Asker::Address(address, number), ResponseBody::Descriptor(found))
                if holds(&found, address) =>
            {
                self.learn(found.clone(), now);
                (number, Answer::Descriptor(Some(Box::new(found))))
            }
            (Asker::Id(_, number) | Asker::Address(_, number), ResponseBody::NotFound) => {
                (number, Answer::Descriptor(None))
            }
            (Asker::NameOf(id, number), ResponseBody::Named { name, .. }) if name.id == id => {
                (number, Answer::NameOf(Some(Box::new(name))))
            }
            (Asker::NameOf(_, number), ResponseBody::NotFound) => (number, Answer::NameOf(None)),
            (Asker::Packets(address), ResponseBody::Descriptor(found))
                if holds(&found, address) =>
            {
                self.learn(found.clone(), now);
                return self.resolved(address, Ok(Some(found)), now);
            }
            (Asker::Packets(address), ResponseBody::NotFound) => {
                return self.resolved(address, Ok(None), now);
            }
            (Asker::Ping(id, number), ResponseBody::Descriptor(found)) if found.id == id => {
                self.learn(found.clone(), now);
                return self.open_for_ping(&found, number, now);
            }
            (Asker::Ping(_, number), ResponseBody::NotFound) => {
                let why = "nobody has published this ID".to_owned();
                return self.fail_ping(number, QueryError::Refused(why));
            }
            (Asker::Refresh(id), ResponseBody::Descriptor(found)) if found.id == id => {
                return self.refreshed(found, now);
            }
            (asker, body) => {
                let error = misfit(&body);
                return self.fail(&asker, error, now);
            }
        };
        self.reply(number, Ok(answer));
    }

    /// A handshake goes on with the tails of a newer descriptor.
    fn refreshed(&mut self, found: ServiceDescriptor, now: Now) {
        if let Some(key) = self.by_peer.get(&(Pseudonym::Own, found.id)).copied() {
            self.retarget(key, &found, now);
        }
        self.learn(found, now);
    }

    /// Handshakes with the directory go on with the tails that are in a new snapshot.
    pub(super) fn retarget_to_directory(&mut self, now: Now) {
        let Some(network) = &self.network else { return };
        let Some(directory) = network.directory(now.unix()).cloned() else {
            return;
        };
        for pseudonym in [Pseudonym::Asking, Pseudonym::Publishing] {
            if let Some(key) = self.by_peer.get(&(pseudonym, directory.id)).copied()
                && let Some(session) = self.sessions.get(key)
                && let Some(opening) = &session.opening
                && !opening.goes_to_all_of(&directory)
            {
                self.retarget(key, &directory, now);
            }
        }
    }

    /// A handshake goes on with the tails of a newer descriptor.
    fn retarget(&mut self, key: SessionKey, found: &ServiceDescriptor, now: Now) {
        if let Some(session) = self.sessions.get_mut(key)
            && let private = session.private_tails(now).collect::<Vec<_>>()
            && let Some(opening) = &mut session.opening
            && (session.phase == Phase::Opening || session.doubt.is_some() || opening.recovers)
        {
            opening.targets = Target::of(found, now.unix()).collect();
            // What is being solved for a tail that is gone, or for what is too little now, is of no use.
            opening.prepared.take_if(|prepared| {
                prepared.target.terms.is_some_and(|terms| {
                    terms.seed != found.effort.seed || terms.suggested < found.effort.suggested
                })
            });
            if opening.recovers {
                // Strangers know the public ones, too, and may use up what is answered through them.
                opening.targets.extend(
                    private
                        .into_iter()
                        .take(PRIVATE_TARGETS)
                        .map(Target::private),
                );
                shuffle(&mut opening.targets, &mut self.rng);
            }
            session.remote = found.session;
            opening.next = opening.next.min(now.instant);
            if opening.targets.is_empty() {
                opening.deadline = now.instant;
            }
        }
    }

    fn failed(&mut self, query: &Query, error: QueryError, now: Now) {
        self.queries.last_error = Some(error.to_string());
        self.fail(&query.asker, error, now);
    }

    /// There is no answer for the one who asked.
    fn fail(&mut self, asker: &Asker, error: QueryError, now: Now) {
        match asker {
            Asker::Publish(version, _) => self.publication(*version, Err(error.clone()), now),
            Asker::Packets(address) => self.resolved(*address, Err(()), now),
            Asker::Ping(_, number) => return self.fail_ping(*number, error),
            _ => {}
        }
        if let Some(number) = asker.number() {
            self.reply(number, Err(error));
        }
    }

    /// Why the directory cannot be reached at present, for a person.
    pub(super) fn obstacle(&self) -> String {
        let why = if self.network.is_none() {
            "there is no snapshot of the network yet"
        } else if !self.links.any_up() {
            "no guard can be reached"
        } else {
            "no answer came through the relays"
        };
        self.shortage.clone().unwrap_or_else(|| why.to_owned())
    }
}

/// Whether an address is that of a descriptor's ID.
fn holds(descriptor: &ServiceDescriptor, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => descriptor.lease.is_some_and(|lease| lease.ipv4 == ip),
        IpAddr::V6(ip) => address::ipv6(&descriptor.id) == ip,
    }
}
