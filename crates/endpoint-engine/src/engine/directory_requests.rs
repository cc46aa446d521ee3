//! Asking the directory: sessions with it, requests over them, answers from it.

use std::net::IpAddr;

use mixline_protocol::address;
use mixline_protocol::directory::{RequestBody, Response, ResponseBody};
use mixline_protocol::records::{Lease, LeaseRequest, NameRecord, ServiceDescriptor};

use super::Engine;
use crate::QueryError;
use crate::clock::Now;
use crate::command::Command;
use crate::command::NamedService;
use crate::directory::pending::{Asker, Query, misfit, send};
use crate::directory::pseudonyms::Persona;
use crate::session::Phase;

/// How long a claimed name lives, seconds, unless it is renewed.
const NAME_LIFE: u64 = 7 * 24 * 3600;

impl Engine {
    /// Takes a request of the outside.
    pub fn handle_command(&mut self, command: Command, now: Now) {
        let (body, asker) = match command {
            Command::Publish(reply) => {
                self.stirred = true;
                return self.publish_now(reply, now);
            }
            Command::Learn(descriptor) => return self.learn(*descriptor, now),
            Command::SetLease(lease) => return self.use_lease(*lease, now),
            Command::Status(reply) => return send(reply, Box::new(self.status(now))),
            Command::Shutdown => return self.shut_down(now),
            Command::LookupName(label, reply) => {
                (RequestBody::LookupName(label), Asker::Name(label, reply))
            }
            Command::LookupId(id, reply) => (RequestBody::LookupId(id), Asker::Id(id, reply)),
            Command::LookupAddress(address, reply) => (
                RequestBody::LookupAddress(address),
                Asker::Address(address, reply),
            ),
            Command::NameOf(id, reply) => (RequestBody::NameOf(id), Asker::NameOf(id, reply)),
            Command::Lease(reply) => {
                let wanted = self.personas.lease(now.unix()).map(|lease| lease.ipv4);
                let key = &self.personas.get(Persona::Own).key;
                (
                    RequestBody::Lease(LeaseRequest::new(now.unix(), wanted, key)),
                    Asker::Lease(reply),
                )
            }
            Command::ClaimName(label, reply) => {
                let own = self.personas.get(Persona::Own);
                let record = NameRecord {
                    label,
                    id: own.id,
                    version: now.unix_ms,
                    issued: now.unix(),
                    expires: now.unix().plus(NAME_LIFE),
                    signature: [0; mixline_protocol::identity::SIGNATURE],
                };
                match record.sign(&own.key) {
                    Ok(record) => (RequestBody::ClaimName(record), Asker::Claim(reply)),
                    Err(error) => {
                        return send(reply, Err(QueryError::Invalid(error.to_string())));
                    }
                }
            }
        };
        self.queries.ask(body, asker, now.instant, &mut self.rng);
        self.stirred = true;
    }

    /// Uses a lease from now on. Peers hear of another address by new handshakes.
    fn use_lease(&mut self, lease: Lease, now: Now) {
        let old = self.personas.lease(now.unix()).map(|lease| lease.ipv4);
        if !self.personas.set_lease(lease) {
            return;
        }
        self.stirred = true;
        if old == Some(lease.ipv4) {
            return;
        }
        for (_, session) in self.sessions.iter_mut() {
            session.rekey |= session.persona == Persona::Own;
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
            self.failed(query, QueryError::Timeout(why), now);
        }
        for persona in [Persona::Asking, Persona::Publishing] {
            if self.queries.any_as(persona) {
                self.ask_as(persona, now);
            }
        }
    }

    fn ask_as(&mut self, persona: Persona, now: Now) {
        let Some(network) = &self.network else { return };
        let directory = network.directory().clone();
        let key = match self.by_peer.get(&(persona, directory.id)).copied() {
            Some(key) => key,
            None => {
                let opened = self.open(
                    persona,
                    directory.id,
                    directory.session,
                    &directory.tails,
                    None,
                    false,
                    now,
                );
                let Some(key) = opened else {
                    self.queries.last_error =
                        Some("the directory has no tails in the snapshot yet".into());
                    return;
                };
                key
            }
        };
        if self
            .sessions
            .get(key)
            .is_some_and(|session| session.phase == Phase::Established)
        {
            for message in self.queries.due(persona, now.instant) {
                self.send_message(key, &message, now);
            }
        }
    }

    /// A message has come from the directory, to one of the throw-away IDs.
    pub(super) fn answer(&mut self, persona: Persona, message: &[u8], now: Now) {
        let Some(network) = &self.network else { return };
        let directory = network.snapshot().directory;
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
        if let Some(query) = self.queries.answered(persona, response.id) {
            self.queries.last_error = None;
            self.settle(query, response.body, now);
        }
    }

    fn settle(&mut self, query: Query, body: ResponseBody, now: Now) {
        match (query.asker, body) {
            (Asker::Publish(version, reply), ResponseBody::Done) => {
                self.publication(version, Ok(()), now);
                if let Some(reply) = reply {
                    send(reply, Ok(()));
                }
            }
            (Asker::Claim(reply), ResponseBody::Done) => send(reply, Ok(())),
            (Asker::Lease(reply), ResponseBody::Lease(lease))
                if lease.id == self.personas.get(Persona::Own).id =>
            {
                self.use_lease(lease, now);
                send(reply, Ok(lease));
            }
            (Asker::Name(label, reply), ResponseBody::Named { name, descriptor })
                if name.label == label =>
            {
                if let Some(descriptor) = &descriptor {
                    self.learn(descriptor.clone(), now);
                }
                send(reply, Ok(Some(NamedService { name, descriptor })));
            }
            (Asker::Name(_, reply), ResponseBody::NotFound) => send(reply, Ok(None)),
            (Asker::Id(id, reply), ResponseBody::Descriptor(found)) if found.id == id => {
                self.learn(found.clone(), now);
                send(reply, Ok(Some(found)));
            }
            (Asker::Id(_, reply), ResponseBody::NotFound) => send(reply, Ok(None)),
            (Asker::Address(address, reply), ResponseBody::Descriptor(found))
                if holds(&found, address) =>
            {
                self.learn(found.clone(), now);
                send(reply, Ok(Some(found)));
            }
            (Asker::Address(_, reply), ResponseBody::NotFound) => send(reply, Ok(None)),
            (Asker::NameOf(id, reply), ResponseBody::Named { name, .. }) if name.id == id => {
                send(reply, Ok(Some(name)));
            }
            (Asker::NameOf(_, reply), ResponseBody::NotFound) => send(reply, Ok(None)),
            (Asker::Packets(address), ResponseBody::Descriptor(found))
                if holds(&found, address) =>
            {
                self.learn(found.clone(), now);
                self.resolved(address, Ok(Some(found)), now);
            }
            (Asker::Packets(address), ResponseBody::NotFound) => {
                self.resolved(address, Ok(None), now);
            }
            (Asker::Refresh(id), ResponseBody::Descriptor(found)) if found.id == id => {
                self.refreshed(found, now);
            }
            (asker, body) => {
                let error = misfit(&body);
                self.fail(asker, error, now);
            }
        }
    }

    /// A handshake goes on with the tails of a newer descriptor.
    fn refreshed(&mut self, found: ServiceDescriptor, now: Now) {
        if let Some(key) = self.by_peer.get(&(Persona::Own, found.id)).copied()
            && let Some(session) = self.sessions.get_mut(key)
            && let Some(opening) = &mut session.opening
            && session.phase == Phase::Opening
        {
            let alive = found.tails.iter().filter(|offer| offer.alive(now.unix()));
            opening.targets = alive.copied().collect();
            session.remote = found.session;
            opening.next = opening.next.min(now.instant);
            if opening.targets.is_empty() {
                opening.deadline = now.instant;
            }
        }
        self.learn(found, now);
    }

    fn failed(&mut self, query: Query, error: QueryError, now: Now) {
        self.queries.last_error = Some(error.to_string());
        self.fail(query.asker, error, now);
    }

    fn fail(&mut self, asker: Asker, error: QueryError, now: Now) {
        match asker {
            Asker::Publish(version, reply) => {
                self.publication(version, Err(error.to_string()), now);
                Asker::Publish(version, reply).fail(error);
            }
            Asker::Packets(address) => self.resolved(address, Err(()), now),
            asker => asker.fail(error),
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
