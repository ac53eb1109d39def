//! Tables and their chains, and the transaction that puts one in place.

use std::io;

use guest_protocol::{AgentError, ErrorKind};

use super::{
    constants::{SUBSYSTEM, batch, chain, family, message, rule, table},
    expression::Verdict,
    rule::Rule,
    set::Set,
};
use crate::{
    error::{Context, Result},
    netlink::{Message, Protocol, Socket, flags},
};

/// Where the kernel shows packets to a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    /// All that come in, before they are routed.
    Prerouting = 0,
    /// Those of this machine's processes.
    Output = 3,
}

/// What a chain may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChainType {
    /// Let through or not.
    Filter,
    /// Change addresses of a connection's first packet.
    Nat,
    /// Change the route of what this machine's processes send.
    Route,
}

/// How a chain is bound to the kernel. What none of its rules decides is let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BaseChain {
    /// What it may do.
    pub(crate) kind: ChainType,
    /// Where.
    pub(crate) hook: Hook,
    /// When, among the chains there: lowest first. Connections are tracked at -200,
    /// `mangle` is -150, destinations are changed at -100, `filter` is 0, sources
    /// are changed at 100.
    pub(crate) priority: i32,
}

/// Rules in order.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    name: String,
    base: Option<BaseChain>,
    rules: Vec<Rule>,
}

impl Chain {
    /// A chain that others jump to.
    pub(crate) fn regular(name: &str) -> Self {
        Self {
            name: name.into(),
            base: None,
            rules: Vec::new(),
        }
    }

    /// A chain that the kernel shows packets to.
    pub(crate) fn base(name: &str, base: BaseChain) -> Self {
        Self {
            base: Some(base),
            ..Self::regular(name)
        }
    }

    /// Adds a rule at the end.
    pub(crate) fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Adds rules at the end.
    pub(crate) fn rules(mut self, rules: impl IntoIterator<Item = Rule>) -> Self {
        self.rules.extend(rules);
        self
    }
}

/// A table of the family `inet`: packets of IPv4 and IPv6.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    name: String,
    sets: Vec<Set>,
    chains: Vec<Chain>,
}

impl Table {
    /// An empty table.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            sets: Vec::new(),
            chains: Vec::new(),
        }
    }

    /// Adds a set.
    pub(crate) fn set(mut self, set: Set) -> Self {
        self.sets.push(set);
        self
    }

    /// Adds a chain.
    pub(crate) fn chain(mut self, chain: Chain) -> Self {
        self.chains.push(chain);
        self
    }

    /// Puts the table in place of the one of its name, if there is one, in one
    /// transaction: in the network namespace of the calling thread, which it blocks.
    ///
    /// # Errors
    /// When the kernel refuses; then nothing has changed.
    pub(crate) fn replace(&self) -> Result<()> {
        let mut transaction = Transaction::default();
        transaction.delete(&self.name);
        self.encode(&mut transaction);
        transaction.commit(&format!("cannot set up the packet filter `{}`", self.name))
    }

    fn encode(&self, transaction: &mut Transaction) {
        transaction.table(&self.name);
        // Before their rules and the maps that point to them.
        for chain in &self.chains {
            let what = format!("chain `{}`", chain.name);
            transaction.add(message::NEW_CHAIN, flags::CREATE, what, |message| {
                message.text(chain::TABLE, &self.name);
                message.text(chain::NAME, &chain.name);
                if let Some(base) = chain.base {
                    base.encode(message);
                }
            });
        }
        for (id, set) in (1..).zip(&self.sets) {
            let what = format!("set `{}`", set.name());
            transaction.add(message::NEW_SET, flags::CREATE, what.clone(), |message| {
                set.encode(&self.name, id, message);
            });
            for elements in set.elements() {
                let what = format!("an element of {what}");
                transaction.add(message::NEW_SET_ELEMENT, flags::CREATE, what, |message| {
                    elements(&self.name, message);
                });
            }
        }
        for chain in &self.chains {
            for (number, rule) in (1..).zip(&chain.rules) {
                let what = format!("rule {number} of chain `{}`", chain.name);
                let flags = flags::CREATE | flags::APPEND;
                transaction.add(message::NEW_RULE, flags, what, |message| {
                    message.text(rule::TABLE, &self.name);
                    message.text(rule::CHAIN, &chain.name);
                    message.nest(rule::EXPRESSIONS, |message| {
                        for expression in &rule.expressions {
                            expression.encode(message);
                        }
                    });
                });
            }
        }
    }
}

impl BaseChain {
    fn encode(self, message: &mut Message) {
        message.nest(chain::HOOK, |message| {
            message.big(chain::HOOK_NUMBER, self.hook as u32);
            message.big(chain::HOOK_PRIORITY, self.priority as u32);
        });
        message.text(
            chain::TYPE,
            match self.kind {
                ChainType::Filter => "filter",
                ChainType::Nat => "nat",
                ChainType::Route => "route",
            },
        );
    }
}

/// Changes that happen together or not at all, and what each is about.
#[derive(Debug, Default)]
struct Transaction {
    messages: Vec<Message>,
    about: Vec<String>,
}

impl Transaction {
    fn add(&mut self, kind: u16, flags: u16, about: String, fill: impl FnOnce(&mut Message)) {
        let mut message = Message::new(SUBSYSTEM << 8 | kind, flags, &header(0));
        fill(&mut message);
        self.messages.push(message);
        self.about.push(about);
    }

    fn table(&mut self, name: &str) {
        self.add(
            message::NEW_TABLE,
            flags::CREATE,
            "the table".into(),
            |message| {
                message.text(table::NAME, name);
            },
        );
    }

    /// A table can be deleted only if it is there: so it is made first.
    fn delete(&mut self, name: &str) {
        self.table(name);
        self.add(
            message::DELETE_TABLE,
            0,
            "the old table".into(),
            |message| {
                message.text(table::NAME, name);
            },
        );
    }

    fn commit(self, doing: &str) -> Result<()> {
        let mut socket = Socket::open(Protocol::Netfilter).context(doing)?;
        let bracket = |kind| Message::new(kind, 0, &header(SUBSYSTEM));
        let outcome = socket.batch(bracket(batch::BEGIN), self.messages, bracket(batch::END));
        outcome.map_err(|(index, error)| {
            let about = index.and_then(|index| self.about.get(index));
            refused(doing, about, &error)
        })
    }
}

fn refused(doing: &str, about: Option<&String>, error: &io::Error) -> AgentError {
    let about = about.map(|about| format!("{about}: ")).unwrap_or_default();
    AgentError::new(ErrorKind::System, format!("{doing}: {about}{error}"))
}

/// netfilter's header: family, version, and for brackets the subsystem.
fn header(subsystem: u16) -> [u8; 4] {
    let [high, low] = subsystem.to_be_bytes();
    let family = if subsystem == 0 { family::INET } else { 0 };
    [family, 0, high, low]
}

impl Rule {
    /// Goes on in another chain, and comes back.
    pub(crate) fn jump(self, chain: &str) -> Self {
        self.verdict(Verdict::Jump(chain.into()))
    }

    /// Lets it through.
    pub(crate) fn accept(self) -> Self {
        self.verdict(Verdict::Accept)
    }

    /// Drops it.
    pub(crate) fn drop(self) -> Self {
        self.verdict(Verdict::Drop)
    }
}
