//! What a rule is made of: small instructions on registers.

use super::constants::{data, register, rule};
use crate::netlink::Message;

/// Longest name of an interface with its zero byte, in bytes.
pub(super) const INTERFACE_NAME: usize = 16;

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The next hook has it.
    Accept,
    /// It is gone.
    Drop,
    /// The chain that jumped here goes on.
    Return,
    /// The rules of this chain, then the next rule.
    Jump(String),
}

impl Verdict {
    fn code(&self) -> i32 {
        match self {
            Self::Drop => 0,
            Self::Accept => 1,
            Self::Jump(_) => -3,
            Self::Return => -5,
        }
    }

    /// Adds it as data of an expression or of an element.
    pub(super) fn encode(&self, message: &mut Message) {
        message.nest(data::VERDICT, |message| {
            message.big(data::VERDICT_CODE, self.code() as u32);
            if let Self::Jump(chain) = self {
                message.text(data::VERDICT_CHAIN, chain);
            }
        });
    }
}

/// How two values are compared. Values are in network byte order, but for marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    /// The same.
    Equal = 0,
    /// Not the same.
    NotEqual = 1,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression {
    Meta {
        key: u32,
    },
    MetaSet {
        key: u32,
    },
    Payload {
        base: u32,
        offset: u32,
        length: u32,
    },
    Compare {
        comparison: Comparison,
        value: Vec<u8>,
    },
    Mask {
        mask: Vec<u8>,
    },
    Lookup {
        set: String,
    },
    VerdictMap {
        set: String,
    },
    Value {
        register: u32,
        value: Vec<u8>,
    },
    Verdict(Verdict),
    RouteInterface,
    Socket,
    TransparentProxy {
        family: u8,
    },
    Queue {
        number: u16,
    },
    DestinationNat {
        family: u8,
    },
    Prohibit,
}

impl Expression {
    fn name(&self) -> &'static str {
        match self {
            Self::Meta { .. } | Self::MetaSet { .. } => "meta",
            Self::Payload { .. } => "payload",
            Self::Compare { .. } => "cmp",
            Self::Mask { .. } => "bitwise",
            Self::Lookup { .. } | Self::VerdictMap { .. } => "lookup",
            Self::Value { .. } | Self::Verdict(_) => "immediate",
            Self::RouteInterface => "fib",
            Self::Socket => "socket",
            Self::TransparentProxy { .. } => "tproxy",
            Self::Queue { .. } => "target",
            Self::DestinationNat { .. } => "nat",
            Self::Prohibit => "reject",
        }
    }

    /// Adds it to a rule's expressions.
    pub(super) fn encode(&self, message: &mut Message) {
        message.nest(rule::LIST_ELEMENT, |message| {
            message.text(rule::EXPRESSION_NAME, self.name());
            message.nest(rule::EXPRESSION_DATA, |message| self.attributes(message));
        });
    }

    // The attributes' numbers are those of `enum nft_<name>_attributes`, in order.
    fn attributes(&self, message: &mut Message) {
        const FIRST: u32 = register::FIRST;
        match self {
            Self::Meta { key } => {
                message.big(1, FIRST).big(2, *key);
            }
            Self::MetaSet { key } => {
                message.big(2, *key).big(3, FIRST);
            }
            Self::Payload {
                base,
                offset,
                length,
            } => {
                message.big(1, FIRST).big(2, *base);
                message.big(3, *offset).big(4, *length);
            }
            Self::Compare { comparison, value } => {
                message.big(1, FIRST).big(2, *comparison as u32);
                message.nest(3, |message| {
                    message.bytes(data::VALUE, value);
                });
            }
            Self::Mask { mask } => {
                message.big(1, FIRST).big(2, FIRST);
                message.big(3, mask.len() as u32);
                message.nest(4, |message| {
                    message.bytes(data::VALUE, mask);
                });
                message.nest(5, |message| {
                    message.bytes(data::VALUE, &vec![0; mask.len()]);
                });
            }
            Self::Lookup { set } => {
                message.text(1, set).big(2, FIRST);
            }
            Self::VerdictMap { set } => {
                message.text(1, set).big(2, FIRST).big(3, register::VERDICT);
            }
            Self::Value { register, value } => {
                message.big(1, *register);
                message.nest(2, |message| {
                    message.bytes(data::VALUE, value);
                });
            }
            Self::Verdict(verdict) => {
                message.big(1, register::VERDICT);
                message.nest(2, |message| verdict.encode(message));
            }
            // Of the destination: the name of the output interface.
            Self::RouteInterface => {
                message.big(1, FIRST).big(2, 2).big(3, 2);
            }
            // Whether the packet's socket is transparent.
            Self::Socket => {
                message.big(1, 0).big(2, FIRST);
            }
            Self::TransparentProxy { family } => {
                message.big(1, u32::from(*family));
                message.big(3, FIRST);
            }
            // The target of xtables rather than the expression `queue`: it does the
            // same, and kernels have it that do not have the other.
            Self::Queue { number } => {
                let mut information = [0; 8];
                information[..2].copy_from_slice(&number.to_ne_bytes());
                information[2..4].copy_from_slice(&1_u16.to_ne_bytes());
                message.text(1, "NFQUEUE").big(2, 3).bytes(3, &information);
            }
            Self::DestinationNat { family } => {
                message.big(1, 1).big(2, u32::from(*family)).big(3, FIRST);
                message.big(5, register::SECOND);
            }
            // By ICMP of the packet's family: administratively prohibited.
            Self::Prohibit => {
                message.big(1, 2).bytes(2, &[3]);
            }
        }
    }
}
