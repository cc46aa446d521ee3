//! The packet filter, as nftables has it: one table for IP and one for ARP.

use mixline_netlink::Error;
use netlink_packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, GenAttribute, GenMessage, Hook, HookNumber, InetHookNumber,
    NfTablesMessage, RuleAttribute, RuleMessage, TableAttribute, TableFlags, TableMessage,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};

use super::super::filter::{Chain, Table};
use super::{Kernel, KernelError};

/// The name of both tables.
const NAME: &str = "mixline";
/// `NFNL_SUBSYS_NFTABLES`: what a batch is for.
const SUBSYSTEM: u16 = 10;
/// What happens to packets that no sentence decides about: they pass (`NF_ACCEPT`).
const POLICY: u32 = 1;
/// The type of chains that decide.
const KIND: &str = "filter";

const TABLES: [Table; 2] = [Table::Inet, Table::Arp];

type Request = (NetfilterMessage, u16);

impl Kernel {
    /// The filter, or none if there is none, or it does not count. It is read only when something
    /// of nftables has changed: questions for names alone are some 750 sentences.
    pub(super) fn filter(&self) -> Result<Option<Vec<Chain>>, KernelError> {
        let generation = self.generation()?;
        if let Some((of, filter)) = &*self.known.borrow()
            && *of == generation
        {
            return Ok(filter.clone());
        }
        let filter = self.read_filter()?;
        self.known.replace(Some((generation, filter.clone())));
        Ok(filter)
    }

    /// The number of the last change of any table of nftables.
    fn generation(&self) -> Result<u32, KernelError> {
        let question = NfTablesMessage::GetGen(GenMessage {
            attributes: Vec::new(),
        });
        let answer = self
            .filters
            .ask(message(Table::Inet, question))
            .map_err(KernelError::at("read the packet filter"))?;
        let NetfilterMessageInner::NfTables(NfTablesMessage::NewGen(answer)) = answer.inner else {
            return Err(KernelError::at("read the packet filter")(Error::Missing(
                "generation",
            )));
        };
        let id = answer.attributes.iter().find_map(|a| match a {
            GenAttribute::Id(id) => Some(*id),
            _ => None,
        });
        id.ok_or_else(|| KernelError::at("read the packet filter")(Error::Missing("generation")))
    }

    /// Whether one of the tables is there, whether it counts or not.
    pub(super) fn has_table(&self) -> Result<bool, KernelError> {
        for table in TABLES {
            let tables = NfTablesMessage::GetTable(TableMessage {
                attributes: Vec::new(),
            });
            let answers = self.filters.request(message(table, tables), NLM_F_DUMP);
            let answers = answers.map_err(KernelError::at("read the packet filter"))?;
            if answers.iter().any(is_there) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn read_filter(&self) -> Result<Option<Vec<Chain>>, KernelError> {
        let at = || KernelError::at("read the packet filter");
        let mut all = Vec::new();
        let mut active = 0;
        for table in TABLES {
            let tables = NfTablesMessage::GetTable(TableMessage {
                attributes: Vec::new(),
            });
            let answers = self.filters.request(message(table, tables), NLM_F_DUMP);
            active += usize::from(answers.map_err(at())?.iter().any(is_active));
            let chains = NfTablesMessage::GetChain(ChainMessage {
                attributes: Vec::new(),
            });
            let answers = self.filters.request(message(table, chains), NLM_F_DUMP);
            let mut chains: Vec<Chain> = answers
                .map_err(at())?
                .iter()
                .filter_map(|answer| chain(table, answer))
                .collect();
            if chains.is_empty() {
                continue;
            }
            let rules = NfTablesMessage::GetRule(RuleMessage {
                attributes: vec![RuleAttribute::Table(NAME.into())],
            });
            let answers = self.filters.request(message(table, rules), NLM_F_DUMP);
            for answer in answers.map_err(at())? {
                add_sentence(&mut chains, answer);
            }
            all.append(&mut chains);
        }
        Ok((active == TABLES.len()).then_some(all))
    }

    /// Replaces the filter as a whole.
    pub(super) fn set_filter(&self, chains: &[Chain]) -> Result<(), KernelError> {
        let mut requests = Vec::new();
        for table in TABLES {
            // The first makes sure that there is one to remove.
            requests.push(new_table(table));
            requests.push(delete_table(table));
            requests.push(new_table(table));
        }
        for chain in chains {
            requests.push(new_chain(chain));
            requests.extend(chain.sentences.iter().map(|sentence| {
                let attributes = vec![
                    RuleAttribute::Table(NAME.into()),
                    RuleAttribute::Chain(chain.name.clone()),
                    RuleAttribute::Expressions(sentence.clone()),
                ];
                let rule = NfTablesMessage::NewRule(RuleMessage { attributes });
                (message(chain.table, rule), NLM_F_CREATE | NLM_F_APPEND)
            }));
        }
        let before = self.known.take().map(|(generation, _)| generation);
        self.transaction(requests)
            .map_err(KernelError::at("set the packet filter (nftables)"))?;
        // A transaction is one change. If it was the only one, what is there is what was set, and to read
        // it would take longer than to set it.
        let after = self.generation()?;
        if before.is_some_and(|before| before.wrapping_add(1) == after) {
            self.known.replace(Some((after, Some(chains.to_vec()))));
        }
        Ok(())
    }

    /// Removes the filter.
    pub(super) fn remove_filter(&self) -> Result<(), KernelError> {
        let requests = TABLES
            .into_iter()
            .flat_map(|table| [new_table(table), delete_table(table)]);
        self.transaction(requests.collect())
            .map_err(KernelError::at("remove the packet filter"))
    }

    /// What the kernel does together or not at all.
    fn transaction(&self, mut requests: Vec<Request>) -> Result<(), Error> {
        if let Some((_, flags)) = requests.last_mut() {
            *flags |= NLM_F_ACK;
        }
        let frame = |control| {
            let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, SUBSYSTEM);
            (NetfilterMessage::new(header, control), 0)
        };
        let begin = [frame(ControlMessage::BatchBegin)];
        let end = [frame(ControlMessage::BatchEnd)];
        self.filters
            .batch(begin.into_iter().chain(requests).chain(end))
    }
}

fn message(table: Table, inner: NfTablesMessage) -> NetfilterMessage {
    let family = match table {
        Table::Inet => NetfilterProtoFamily::Inet,
        Table::Arp => NetfilterProtoFamily::ARP,
    };
    NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), inner)
}

fn new_table(table: Table) -> Request {
    let attributes = vec![
        TableAttribute::Name(NAME.into()),
        TableAttribute::Flags(TableFlags::empty()),
    ];
    let table_message = NfTablesMessage::NewTable(TableMessage { attributes });
    (message(table, table_message), NLM_F_CREATE)
}

fn delete_table(table: Table) -> Request {
    let attributes = vec![TableAttribute::Name(NAME.into())];
    let table_message = NfTablesMessage::DeleteTable(TableMessage { attributes });
    (message(table, table_message), 0)
}

fn new_chain(chain: &Chain) -> Request {
    let hook = vec![
        Hook::Number(hook_number(chain.hook)),
        Hook::Priority(chain.priority.cast_unsigned()),
    ];
    let attributes = vec![
        ChainAttribute::Table(NAME.into()),
        ChainAttribute::Name(chain.name.clone()),
        ChainAttribute::Hook(hook),
        ChainAttribute::Policy(POLICY),
        ChainAttribute::Type(KIND.into()),
    ];
    let new = NfTablesMessage::NewChain(ChainMessage { attributes });
    (message(chain.table, new), NLM_F_CREATE)
}

fn hook_number(number: u32) -> HookNumber {
    InetHookNumber::from(number).into()
}

fn is_there(answer: &NetfilterMessage) -> bool {
    let name = TableAttribute::Name(NAME.into());
    match &answer.inner {
        NetfilterMessageInner::NfTables(NfTablesMessage::NewTable(table)) => {
            table.attributes.contains(&name)
        }
        _ => false,
    }
}

fn is_active(answer: &NetfilterMessage) -> bool {
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewTable(table)) = &answer.inner else {
        return false;
    };
    let dormant = table.attributes.iter().any(
        |attribute| matches!(attribute, TableAttribute::Flags(flags) if flags.contains(TableFlags::Dormant)),
    );
    is_there(answer) && !dormant
}

fn chain(table: Table, answer: &NetfilterMessage) -> Option<Chain> {
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewChain(message)) = &answer.inner else {
        return None;
    };
    if !message
        .attributes
        .contains(&ChainAttribute::Table(NAME.into()))
    {
        return None;
    }
    let mut chain = Chain {
        table,
        name: String::new(),
        hook: u32::MAX,
        priority: 0,
        sentences: Vec::new(),
    };
    for attribute in &message.attributes {
        match attribute {
            ChainAttribute::Name(name) => chain.name.clone_from(name),
            ChainAttribute::Hook(parts) => {
                for part in parts {
                    match part {
                        Hook::Number(number) => chain.hook = (*number).into(),
                        Hook::Priority(priority) => chain.priority = priority.cast_signed(),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(chain)
}

fn add_sentence(chains: &mut [Chain], answer: NetfilterMessage) {
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewRule(rule)) = answer.inner else {
        return;
    };
    let (mut of, mut sentence) = (None, Vec::new());
    for attribute in rule.attributes {
        match attribute {
            RuleAttribute::Chain(name) => of = Some(name),
            RuleAttribute::Expressions(expressions) => sentence = expressions,
            _ => {}
        }
    }
    if let Some(chain) = chains
        .iter_mut()
        .find(|chain| Some(&chain.name) == of.as_ref())
    {
        chain.sentences.push(sentence);
    }
}
